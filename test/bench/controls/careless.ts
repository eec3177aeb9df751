/**
 * What a newcomer writes on the same stack: Hono with cors and secure headers, jose, a Map, and
 * `server.upgrade`. No checks, no limits, no log.
 */
import { Hono } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import { jwtVerify } from "jose";

const secret = new TextEncoder().encode(process.env.JWT_SECRET);
const tickets = new Map<string, string>();
const app = new Hono();
app.use(cors());
app.use(secureHeaders());
app.get("/healthz", (c) => c.text("ok"));
app.post("/api/auth/ws-ticket", async (c) => {
  const token = c.req.header("Authorization")?.replace("Bearer ", "") ?? "";
  const { payload } = await jwtVerify(token, secret);
  const ticket = crypto.getRandomValues(new Uint8Array(32)).toBase64({ alphabet: "base64url" });
  tickets.set(ticket.slice(0, 43), String(payload.sub));
  return c.json({ ticket: ticket.slice(0, 43), expiresIn: 30 });
});

Bun.serve<{ user: string }>({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  development: false,
  fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname !== "/ws/chat") return app.fetch(request);
    const ticket = url.searchParams.get("ticket") ?? "";
    const user = tickets.get(ticket);
    tickets.delete(ticket);
    if (user === undefined) return new Response("Unauthorized", { status: 401 });
    return server.upgrade(request, { data: { user } }) ? undefined : new Response(null);
  },
  websocket: { data: {} as { user: string }, message() {} },
});
