/**
 * What the server is measured against: the least that answers the same requests.
 *
 *     bun test/bench/control.ts <bare|jose|hello>
 *
 * - bare: mints a ticket for anybody and upgrades every socket; checks nothing, stores nothing
 * - jose: the same, but the token is verified
 * - hello: one route of a Hono app
 */
import { Hono } from "hono";
import { jwtVerify } from "jose";

const [kind] = process.argv.slice(2);
const listen = { hostname: "127.0.0.1", port: Number(process.env.PORT), development: false };

if (kind === "hello") {
  const app = new Hono().get("/healthz", (c) => c.json({ status: "ok" }));
  Bun.serve({ ...listen, fetch: app.fetch });
} else {
  const key = kind === "jose" ? await importSecret(process.env.JWT_SECRET ?? "") : undefined;
  Bun.serve({
    ...listen,
    websocket: { message() {} },
    async fetch(request, server) {
      if (request.method === "GET") {
        return server.upgrade(request) ? undefined : new Response(null, { status: 200 });
      }
      if (key) {
        const token = request.headers.get("authorization")?.slice("Bearer ".length) ?? "";
        await jwtVerify(token, key);
      }
      const ticket = crypto.getRandomValues(new Uint8Array(32)).toBase64({ alphabet: "base64url" });
      return Response.json({ ticket: ticket.slice(0, 43), expiresIn: 30 });
    },
  });
}

function importSecret(secret: string): Promise<CryptoKey> {
  const bytes = new TextEncoder().encode(secret);
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, [
    "verify",
  ]);
}
