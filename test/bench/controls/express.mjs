/** The same as careless.ts with Express, ws and jsonwebtoken, for Bun and Node. */
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import express from "express";
import jwt from "jsonwebtoken";
import { WebSocketServer } from "ws";

const tickets = new Map();
const app = express();
app.get("/healthz", (_, response) => response.send("ok"));
app.post("/api/auth/ws-ticket", (request, response) => {
  const token = request.headers.authorization?.replace("Bearer ", "") ?? "";
  const { sub } = jwt.verify(token, process.env.JWT_SECRET);
  const ticket = randomBytes(32).toString("base64url");
  tickets.set(ticket, sub);
  response.json({ ticket, expiresIn: 30 });
});

const server = createServer(app);
const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  const ticket = new URL(request.url, "http://localhost").searchParams.get("ticket");
  const user = tickets.get(ticket);
  tickets.delete(ticket);
  if (user === undefined) return socket.destroy();
  sockets.handleUpgrade(request, socket, head, (opened) => {
    opened.user = user;
  });
});
server.listen(Number(process.env.PORT), "127.0.0.1");
