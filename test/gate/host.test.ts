import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Context, Hono } from "hono";
import type { Gate } from "../../src/gate/gate.ts";
import { serve } from "../../src/sockets/serve.ts";
import { bareGate } from "../support/gate.ts";
import { handshake, sendRaw } from "../support/raw.ts";

/** An application with pages, headers and errors of its own. */
function hostOf(mount: (app: Hono, place: "first" | "last") => void): Hono {
  const app = new Hono();
  mount(app, "first");
  app.use(async (c, next) => {
    await next();
    c.header("X-Host", "the host's own");
    c.header("Cache-Control", "public, max-age=60");
  });
  app.get("/", (c) => c.html("<!doctype html><title>Host</title>"));
  app.get("/search", (c) => c.text(`Searched for ${new URL(c.req.url).search}`));
  app.get("/dir/", (c) => c.text("A directory"));
  app.get("/api/authors", (c) => c.json(["An author"]));
  app.get("/api/authors/ws-ticket", (c) => c.json({ ticket: "a book" }));
  app.get("/cookie", (c) => {
    c.header("Set-Cookie", "host=1; Path=/");
    return c.text(c.req.header("cookie") ?? "none");
  });
  app.post("/echo", async (c) => c.body(await c.req.arrayBuffer()));
  app.get("/boom", () => {
    throw new Error("The host's own");
  });
  app.options("/search", (c) => c.body(null, 204, { "Access-Control-Allow-Origin": "*" }));
  mount(app, "last");
  app.notFound((c) => c.text(`The host has no ${c.req.path}`, 404));
  app.onError((error, c) => c.text(`The host failed: ${error.message}`, 500));
  return app;
}

const mountAt =
  (gate: Gate, wanted: "first" | "last") =>
  (app: Hono, place: "first" | "last"): void => {
    if (place !== wanted) return;
    app.all("/api/auth/*", (c: Context) => gate.fetch(c.req.raw));
  };

const { gate, bearer } = bareGate();
let servers: Record<string, { readonly port: number; stop(): Promise<unknown> }>;

beforeAll(() => {
  const listen = (app: Hono) => {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      development: false,
      fetch: (request) => app.fetch(request),
    });
    return { port: server.port as number, stop: () => server.stop(true) };
  };
  const bare = hostOf(() => {});
  const served = serve(
    gate,
    { message() {} },
    { path: "/live", fetch: (request) => bare.fetch(request) },
  );
  servers = {
    "without the gate": listen(bare),
    "the gate mounted first": listen(hostOf(mountAt(gate, "first"))),
    "the gate mounted last": listen(hostOf(mountAt(gate, "last"))),
    "behind serve": { port: Number(served.url.port), stop: () => served.stop() },
  };
});
afterAll(async () => {
  for (const { stop } of Object.values(servers)) await stop();
});

const CLOSE = { Upgrade: null, "Sec-WebSocket-Key": null, "Sec-WebSocket-Version": null };

function request(
  target: string,
  headers: Record<string, string | null> = {},
  options: { method?: string; body?: string } = {},
): string {
  const { body } = options;
  const length = body === undefined ? {} : { "Content-Length": String(body.length) };
  return handshake(target, { ...CLOSE, Connection: "keep-alive", ...length, ...headers }, options);
}

/** The answer as it stands on the wire, except for what changes with time. */
async function bytesOf(name: string, sent: string): Promise<string> {
  const { text } = await sendRaw(servers[name]?.port as number, sent);
  return text.replace(/^Date: .*$/m, "Date: now");
}

const REQUESTS: [name: string, sent: string][] = [
  ["a page", request("/")],
  ["HEAD of a page", request("/", {}, { method: "HEAD" })],
  ["a query that looks like a credential", request("/search?token=x")],
  [
    "a query with a ticket, a JWT and an encoded name",
    request("/search?ticket=a&ticket=b&jwt=eyJhbGciOiJIUzI1NiJ9.e30.x&%74oken=x&sid=1"),
  ],
  ["a path with a slash at its end", request("/dir/")],
  ["the same without it", request("/dir")],
  ["no page", request("/missing?access_token=x")],
  ["no page, with a slash at its end", request("/missing/")],
  ["no page, posted to", request("/missing", {}, { method: "POST", body: "a=b" })],
  ["another method than a page has", request("/dir/", {}, { method: "DELETE" })],
  ["a path that starts like the gate's", request("/api/authors?apikey=x")],
  ["a path that starts and ends like the gate's", request("/api/authors/ws-ticket")],
  ["the gate's path in capital letters", request("/API/AUTH/ws-ticket", {}, { method: "POST" })],
  ["the path above the gate's", request("/api")],
  ["a page with a cookie", request("/cookie", { Cookie: "anonSessionId=x; session=y" })],
  ["a foreign origin", request("/search?q=1", { Origin: "https://evil.example" })],
  [
    "a preflight",
    request(
      "/search",
      { Origin: "https://evil.example", "Access-Control-Request-Method": "GET" },
      { method: "OPTIONS" },
    ),
  ],
  [
    "a preflight of no page",
    request(
      "/missing",
      { Origin: "https://evil.example", "Access-Control-Request-Method": "POST" },
      { method: "OPTIONS" },
    ),
  ],
  ["a bad Authorization header", request("/", { Authorization: "Bearer , ," })],
  ["a body", request("/echo", {}, { method: "POST", body: "x".repeat(20_000) })],
  ["a page that throws", request("/boom")],
  ["a handshake to a page", handshake("/search?ticket=x", { Connection: "Upgrade" })],
];

describe.each(["the gate mounted first", "the gate mounted last", "behind serve"])(
  "a host application with %s answers byte for byte as without it",
  (name) => {
    test.each(REQUESTS)("%s", async (_, sent) => {
      expect(await bytesOf(name, sent)).toBe(await bytesOf("without the gate", sent));
    });
  },
);

test("these are the host's own answers, of every kind", async () => {
  const all = await Promise.all(REQUESTS.map(([, sent]) => bytesOf("without the gate", sent)));
  const statuses = all.map((text) => Number(text.split(" ")[1]));
  expect(new Set(statuses)).toEqual(new Set([200, 204, 404, 500]));
  for (const text of all) expect(text).not.toContain("problem+json");
});

test.each(["the gate mounted first", "the gate mounted last", "behind serve"])(
  "with %s it mints, and its refusals are its own",
  async (name) => {
    const post = (path: string, headers: Record<string, string> = {}) =>
      sendRaw(
        servers[name]?.port as number,
        request(path, { "Content-Length": "0", ...headers }, { method: "POST" }),
      );
    const minted = await post("/api/auth/ws-ticket", await bearer());
    expect([minted.status, JSON.parse(minted.body)]).toMatchObject([200, { expiresIn: 30 }]);
    expect((await post("/api/auth/ws-ticket")).status).toBe(401);
    expect((await post("/api/auth/anonymous-session")).status).toBe(204);
    const refused = await post("/api/auth/ws-ticket?token=x");
    expect([refused.status, JSON.parse(refused.body).code]).toEqual([400, "credential_in_url"]);
    const nowhere = await post("/api/auth/nowhere");
    expect([nowhere.status, JSON.parse(nowhere.body).code]).toEqual([404, "not_found"]);
    expect(nowhere.headers.get("content-type")).toBe("application/problem+json");
  },
);
