import { createGate } from "ws-ticket";
import { createSockets } from "ws-ticket/bun";

const gate = createGate({
  users: { secret: process.env.JWT_SECRET! },
  visitors: { secret: process.env.SESSION_SECRET! },
});
const sockets = createSockets(gate, {
  message: (socket, { id }, text) => socket.send(JSON.stringify({ from: id, text })),
});
const server = Bun.serve({
  fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (pathname === "/live") return sockets.upgrade(request, server);
    const socketAddress = server.requestIP(request)?.address;
    if (pathname.startsWith("/api/auth/")) return gate.fetch(request, { socketAddress });
    return new Response("Your app");
  },
  websocket: sockets.websocket,
});
console.log(`Listening on ${server.url}`);
