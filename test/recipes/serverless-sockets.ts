import { createGate } from "ws-ticket";
import { openRedis, serve } from "ws-ticket/bun";

const redis = await openRedis({ url: process.env.REDIS_URL! });
const gate = createGate({ users: { secret: process.env.JWT_SECRET! }, store: redis.store });
const server = serve(
  gate,
  { message: (socket, { id }, text) => socket.send(JSON.stringify({ from: id, text })) },
  { path: "/live", port: Number(process.env.PORT ?? 3000) },
);
console.log(`Listening on ${server.url}`);
