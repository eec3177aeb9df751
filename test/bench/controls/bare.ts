/** Mints a ticket for anybody and upgrades every socket: checks nothing, stores nothing. */
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  development: false,
  websocket: { message() {} },
  fetch(request, server) {
    if (request.method === "GET") {
      return server.upgrade(request) ? undefined : new Response(null, { status: 200 });
    }
    const ticket = crypto.getRandomValues(new Uint8Array(32)).toBase64({ alphabet: "base64url" });
    return Response.json({ ticket: ticket.slice(0, 43), expiresIn: 30 });
  },
});
