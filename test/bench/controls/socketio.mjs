/** The same as express.mjs with socket.io in the place of ws. */
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import express from "express";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

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
const io = new Server(server, { transports: ["websocket"], serveClient: false });
io.use((socket, next) => {
  const { ticket } = socket.handshake.query;
  const user = tickets.get(ticket);
  tickets.delete(ticket);
  if (user === undefined) return next(new Error("Unauthorized"));
  socket.data.user = user;
  next();
});
server.listen(Number(process.env.PORT), "127.0.0.1");
