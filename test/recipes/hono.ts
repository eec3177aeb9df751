import { Hono } from "hono";
import { getConnInfo } from "hono/bun";
import { createGate } from "ws-ticket";
import { createSockets, type SocketData } from "ws-ticket/bun";

const gate = createGate({ users: { secret: process.env.JWT_SECRET! } });
const sockets = createSockets(gate, {
  message: (socket, { id }, text) => socket.send(JSON.stringify({ from: id, text })),
});

const app = new Hono<{ Bindings: { server: Bun.Server<SocketData> } }>();
app.all("/api/auth/*", (c) =>
  gate.fetch(c.req.raw, { socketAddress: getConnInfo(c).remote.address }),
);
app.get("/live", async (c) => (await sockets.upgrade(c.req.raw, c.env.server)) ?? new Response());
app.get("/", (c) => c.text("Your app"));

const server = Bun.serve({
  fetch: (request, server) => app.fetch(request, { server }),
  websocket: sockets.websocket,
});
console.log(`Listening on ${server.url}`);
