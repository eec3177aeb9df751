/** One route of a Hono app. */
import { Hono } from "hono";

const app = new Hono().get("/healthz", (c) => c.json({ status: "ok" }));
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  development: false,
  fetch: app.fetch,
});
