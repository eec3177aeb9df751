/** A function that mints, redeems and signs out on a shared Redis, with a secret and with an issuer's keys. */
export const FUNCTION = `
import { createGate, redisTicketStore, refusalResponse, upstashTransport } from "ws-ticket";

export function createFunction(env) {
  const openStore = () =>
    redisTicketStore(
      upstashTransport({ url: env.UPSTASH_REDIS_REST_URL, token: env.UPSTASH_REDIS_REST_TOKEN }),
    );
  const gate = createGate({
    users: { secret: env.JWT_SECRET },
    visitors: { secret: env.SESSION_SECRET },
    store: openStore(),
  });
  const issuer = createGate({
    users: { jwksUrl: env.JWT_JWKS_URL },
    basePath: "/api/issuer",
    store: openStore(),
  });
  return async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/api/auth/redeem") {
      const redeemed = await gate.redeem(await request.text());
      return redeemed.ok ? Response.json(redeemed.identity) : refusalResponse(redeemed);
    }
    return pathname.startsWith("/api/issuer/") ? issuer.fetch(request) : gate.fetch(request);
  };
}
`;

export const ON_BUN = `
import { createFunction } from "./function.js";
const { url } = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: createFunction(process.env) });
console.log(url.href);
`;

export const ON_NODE = `
import { createServer } from "node:http";
import { createFunction } from "./function.js";
const handle = createFunction(process.env);
const server = createServer(async (incoming, outgoing) => {
  const { method, headers, url } = incoming;
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const body = chunks.length > 0 ? Buffer.concat(chunks) : undefined;
  const request = new Request(new URL(url, "http://" + headers.host), { method, headers, body });
  const response = await handle(request);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.end(Buffer.from(await response.arrayBuffer()));
});
server.listen(0, "127.0.0.1", () => console.log("http://127.0.0.1:" + server.address().port));
`;

export const ON_DENO = `
import { createFunction } from "./function.js";
const onListen = ({ port }) => console.log("http://127.0.0.1:" + port);
Deno.serve({ hostname: "127.0.0.1", port: 0, onListen }, createFunction(Deno.env.toObject()));
`;

export const ON_WORKERD = `
import { createFunction } from "./function.js";
let handle;
export default { fetch: (request, env) => (handle ??= createFunction(env))(request) };
`;

/** Runs the bundled worker in workerd. */
export const MINIFLARE = `
import { Miniflare } from "miniflare";
const worker = new Miniflare({
  ...{ modules: true, scriptPath: "bundle.mjs", host: "127.0.0.1", port: 0 },
  compatibilityDate: "2026-07-01",
  bindings: { ...process.env },
});
console.log((await worker.ready).href);
`;

/** The sockets: on Bun, on the same Redis. */
export const SOCKETS = `
import { createGate } from "ws-ticket";
import { openRedis, serve } from "ws-ticket/bun";
const redis = await openRedis({ url: process.env.REDIS_URL });
const gate = createGate({ users: { secret: process.env.JWT_SECRET }, store: redis.store });
const message = (socket, { id }, text) => socket.send(JSON.stringify({ from: id, text }));
const server = serve(gate, { message }, { path: "/live" });
console.log(server.url.href);
`;

/** The client: says hello, prints what it gets, ends with the sign-out; as a visitor it ends at once. */
export const CLIENT = `
import { connect } from "ws-ticket/client";
const env = globalThis.Deno?.env.toObject() ?? process.env;
const url = env.SOCKETS;
const say = (...words) => console.log(words.join(" "));
const connection = connect({
  ...{ url, getToken: env.TOKEN },
  paths: { auth: env.FUNCTION + "/api/auth", socket: "/live" },
});
connection.on("open", () => connection.send("hello"));
connection.on("message", (text) => {
  say(text);
  const headers = { Authorization: "Bearer " + env.TOKEN };
  void fetch(env.FUNCTION + "/api/auth/sign-out", { method: "POST", headers });
});
connection.on("down", ({ code, reason }) => {
  say(code, reason);
  const visitor = connect({ url });
  visitor.on("down", ({ code, reason }) => say("visitor:", code, reason));
});
`;

/** A stranger's own tests: with handlers, and with the chat. */
export const FIRST_TEST = `
import { expect, test } from "bun:test";
import { createTestServer } from "ws-ticket/testing";

test("echoes, until the credential expires", async () => {
  const message = (socket, _, text) => socket.send(text);
  await using server = await createTestServer({ handlers: { message } });
  const alice = await server.connectAs("alice");
  alice.send("hello");
  expect(await alice.next()).toBe("hello");
  await server.clock.advance(3_600_000);
  expect(await alice.closed).toMatchObject({ code: 4001 });
});

test("chats", async () => {
  await using server = await createTestServer();
  const alice = await server.connectAs("alice");
  const visitor = await server.connectVisitor();
  visitor.send(JSON.stringify({ type: "ANON_TO_USER", to: "alice", content: "Hi" }));
  expect(JSON.parse(await alice.next())).toMatchObject({ content: "Hi" });
});
`;
