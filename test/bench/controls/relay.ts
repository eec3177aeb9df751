/**
 * What the chat is measured against: a bare Bun relay that stamps messages and hands them on, and neither
 * checks nor keeps anything. Whoever connects says who he is.
 */
let lastId = 0;

const server = Bun.serve<{ side: string; id: string }>({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  development: false,
  fetch(request, server) {
    const { searchParams } = new URL(request.url);
    const data = { side: searchParams.get("side") ?? "", id: searchParams.get("id") ?? "" };
    return server.upgrade(request, { data }) ? undefined : new Response("A relay");
  },
  websocket: {
    data: {} as { side: string; id: string },
    open(socket) {
      socket.subscribe(socket.data.id);
    },
    message(socket, text) {
      const { type, to, content, ref } = JSON.parse(String(text));
      const { id: from, side } = socket.data;
      const [id, timestamp] = [String(++lastId), new Date().toISOString()];
      const chatId = side === "visitor" ? from : to;
      const message = JSON.stringify({ type, id, from, to, content, timestamp, chatId });
      socket.send(JSON.stringify({ type: "ACK", ref, id, timestamp }));
      server.publish(to, message);
      server.publish(from, message);
    },
  },
});
