import { describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createScriptRunner } from "../../src/redis/script.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { upstashClientTransport } from "../../src/redis/upstash-client.ts";
import {
  atDeadline,
  expectUnavailable,
  mint,
  MINTED,
  OPENED,
  REFUSED,
  serverOn,
  UNAVAILABLE,
  UNKNOWN_TICKET,
  upgrade,
} from "../support/outage.ts";
import { freePort, startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { type BridgeFault, startUpstashBridge } from "../support/upstash.ts";
import { reached } from "../support/wire.ts";

/** The two ways to Upstash: for functions, and for servers. */
const TRANSPORTS = [
  ["upstash transport", upstashTransport],
  ["upstash's own client", upstashClientTransport],
] as const;

function serverAt(
  settings: { url: string; token: string },
  transport: typeof upstashTransport = upstashTransport,
): TestServer {
  return serverOn((options) => transport({ ...settings, ...options }));
}

/** Where no Redis is: the bridge makes up all that it answers. */
const NO_REDIS = "redis://127.0.0.1:1";

const json = (body: unknown, init?: ResponseInit) => () => Response.json(body, init);
const text = (body: BodyInit, init?: ResponseInit) => () => new Response(body, init);

describe.each(TRANSPORTS)("%s, bad responses", (_, transport) => {
  const html = { "Content-Type": "text/html" };
  const gzip = { "Content-Encoding": "gzip" };
  const huge = `{"result":1${" ".repeat(9 * 1024 * 1024)}}`;
  const endless = () =>
    new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(64 * 1024).fill(32));
      },
    });

  test.each<[string, () => Response]>([
    ["401", json({ error: "WRONGPASS invalid or missing auth token" }, { status: 401 })],
    ["403", json({ error: "NOPERM this user has no permissions" }, { status: 403 })],
    ["404 from another server", text("<h1>Not found</h1>", { status: 404, headers: html })],
    ["429", json({ error: "ERR max daily request limit exceeded" }, { status: 429 })],
    ["500 in JSON", json({ error: "ERR internal" }, { status: 500 })],
    ["500 with a result", json({ result: 1 }, { status: 500 })],
    ["201 with a result", json({ result: 1 }, { status: 201 })],
    ["204", text("", { status: 200 })],
    ["502 in HTML", text("<html>Bad gateway</html>", { status: 502, headers: html })],
    ["503 without a body", () => new Response(null, { status: 503 })],
    ["200 in HTML", text("<html>Sign in to this network</html>", { headers: html })],
    ["an empty object", json({})],
    ["an error with status 200", json({ error: "ERR no" })],
    ["a result and an error", json({ result: 1, error: "ERR no" })],
    ["null", json(null)],
    ["a number", json(1)],
    ["a string", json("OK")],
    ["an array, as to a pipeline", json([{ result: 1 }])],
    ["a result that is another number", json({ result: 7 })],
    ["a result that is true", json({ result: true })],
    ["a result that is an object", json({ result: { purpose: "socket", user: "mallory" } })],
    ["a result that is an array", json({ result: [1] })],
    ["JSON that breaks off", text('{"result":"O')],
    ["two JSON documents", text('{"result":1}{"result":1}')],
    ["bytes that are no UTF-8", text(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d]))],
    ["gzip that is none", text('{"result":1}', { headers: gzip })],
    ["a result with more space around it than is read", text(huge)],
    ["the same in gzip", text(Bun.gzipSync(huge), { headers: gzip })],
    ["a body without end", () => new Response(endless())],
  ])("answers 503 at mint and upgrade to %s, with one request each", async (_, fault) => {
    await using bridge = await startUpstashBridge(NO_REDIS);
    await using server = serverAt(bridge, transport);
    bridge.fault = fault;
    // While time stands still: no deadline is what ends them.
    expect(await Promise.all([mint(server), upgrade(server, UNKNOWN_TICKET)])).toEqual([
      UNAVAILABLE,
      UNAVAILABLE,
    ]);
    expect(bridge.requests.toSorted()).toEqual(["EVALSHA", "GETDEL"]);
    expect(server.server.socketCount).toBe(0);
  });

  test.each<[string, BridgeFault]>([
    [
      "a body that stops in the middle",
      () =>
        new Response(
          new ReadableStream({
            start: (controller) => controller.enqueue(new TextEncoder().encode('{"result":')),
          }),
        ),
    ],
    ["no response", "hang"],
  ])("answers 503 at the deadline to %s, with one request each", async (_, fault) => {
    await using bridge = await startUpstashBridge(NO_REDIS);
    await using server = serverAt(bridge, transport);
    bridge.fault = fault;
    const count = (name: string) => bridge.requests.filter((one) => one === name).length;
    const sent = reached(count, ["EVALSHA", "GETDEL"]);
    const all = Promise.all([mint(server), upgrade(server, UNKNOWN_TICKET)]);
    expect(await atDeadline(server, sent, all)).toEqual([UNAVAILABLE, UNAVAILABLE]);
    expect(bridge.requests).toHaveLength(2);
  });

  test.each<[string, string | null]>([
    ["nothing", null],
    ["text that is no record", "alice"],
    ["the status of another command", "OK"],
    ["a record in base64", Buffer.from('{"purpose":"socket"}').toString("base64")],
    ["a number in text", "123"],
  ])("answers 503 at mint and 401 at the upgrade to %s", async (_, result) => {
    await using bridge = await startUpstashBridge(NO_REDIS);
    await using server = serverAt(bridge, transport);
    bridge.fault = json({ result });
    expect(await mint(server)).toEqual(UNAVAILABLE);
    expect(await upgrade(server, UNKNOWN_TICKET)).toEqual(REFUSED);
  });

  test("reads a response that is properly compressed", async () => {
    await using bridge = await startUpstashBridge(NO_REDIS);
    await using server = serverAt(bridge, transport);
    bridge.fault = text(Bun.gzipSync('{"result":1}'), { headers: gzip });
    expect(await mint(server)).toEqual(MINTED);
  });

  test.each([301, 302, 303, 307, 308])(
    "follows no redirect (%d), so the token goes nowhere else",
    async (status) => {
      let strangers = 0;
      using stranger = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch() {
          strangers++;
          return Response.json({ result: 1 });
        },
      });
      await using bridge = await startUpstashBridge(NO_REDIS);
      await using server = serverAt(bridge, transport);
      bridge.fault = () => Response.redirect(stranger.url.href, status);
      await expectUnavailable(server, UNKNOWN_TICKET);
      expect(strangers).toBe(0);
    },
  );

  test.each([
    ["a token that isn't its own", { token: "another-token" }],
    ["a name that doesn't resolve", { url: "https://redis.invalid" }],
    ["an address where no server listens", { url: `http://127.0.0.1:${freePort()}` }],
  ])("answers 503 with %s", async (_, wrong) => {
    await using bridge = await startUpstashBridge(NO_REDIS);
    await using server = serverAt({ ...bridge, ...wrong }, transport);
    await expectUnavailable(server, UNKNOWN_TICKET);
    expect(bridge.requests).toEqual([]);
  });
});

test.each(TRANSPORTS)(
  "%s: a response without a result is none, and null is one",
  async (_, transport) => {
    let body: unknown = {};
    using rest = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => Response.json(body) });
    const { command } = transport({ url: rest.url.href, token: "token" });
    await expect(command(["GET", "key"])).rejects.toMatchObject({ code: "no_result" });
    body = { result: null };
    expect(await command(["GET", "key"])).toBeNull();
  },
);

test("both ways to Upstash send the same request, and give back what Redis said as it is", async () => {
  const seen: unknown[] = [];
  using rest = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const headers = Object.fromEntries(request.headers);
      seen.push([request.method, request.url, headers, await request.text()]);
      return Response.json({ result: ["1", "true", null, ['{"a":1}', 2]] });
    },
  });
  for (const [, transport] of TRANSPORTS) {
    const { command } = transport({ url: rest.url.href, token: "token" });
    const reply = await command([
      "EVALSHA",
      "abc",
      "1",
      "key",
      "",
      '{"a":1}',
      "true",
      "Grüße",
      "7",
    ]);
    expect(reply).toEqual(["1", "true", null, ['{"a":1}', 2]]);
  }
  expect(seen).toHaveLength(2);
  expect(seen[0]).toEqual(seen[1]);
  expect(seen[0]).toMatchObject([
    "POST",
    rest.url.href,
    { authorization: "Bearer token", "content-type": "application/json" },
    expect.stringContaining("EVALSHA"),
  ]);
});

describeWith("redis-server")("upstash transport, scripts", () => {
  test("are sent by their hash, and as text where Redis doesn't have them", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    const run = createScriptRunner(upstashTransport(bridge));
    const scripts = Array.from({ length: 20 }, (_, at) => `return ${at}`);
    for (const first of [true, false]) {
      const before = bridge.requests.length;
      for (const [at, script] of scripts.entries()) expect(await run(script, [], [])).toBe(at);
      const each = first ? ["EVALSHA", "EVAL"] : ["EVALSHA"];
      expect(bridge.requests.slice(before)).toEqual(scripts.flatMap(() => each));
    }
  });
});

describeWith("redis-server")("upstash transport, many at once", () => {
  test.each(TRANSPORTS)(
    "over %s each ticket that is taken is a request of its own, so that none shares another's fate",
    async (_, transport) => {
      await using redis = await startRedis();
      await using bridge = await startUpstashBridge(redis.url);
      await using server = serverAt(bridge, transport);
      const tickets = await Promise.all(Array.from({ length: 10 }, () => server.ticket()));
      const takes = tickets.map((ticket) => upgrade(server, ticket));
      expect(await Promise.all(takes)).toEqual(tickets.map(() => OPENED));
      expect(bridge.requests.filter((name) => name === "GETDEL")).toHaveLength(10);
    },
  );
});

describeWith("openssl")("a REST server's certificate that isn't trusted", () => {
  test("means 503, and no request arrives", async () => {
    const directory = await mkdtemp(join(tmpdir(), "ws-ticket-tls-"));
    const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
    const made = Bun.spawnSync([
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
      ...["-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost"],
    ]);
    expect(made.exitCode).toBe(0);
    let requests = 0;
    using rest = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { key: Bun.file(key), cert: Bun.file(cert) },
      fetch() {
        requests++;
        return Response.json({ result: 1 });
      },
    });
    for (const [, transport] of TRANSPORTS) {
      await using server = serverAt({ url: rest.url.href, token: "token" }, transport);
      await expectUnavailable(server, UNKNOWN_TICKET);
    }
    expect(requests).toBe(0);
    await rm(directory, { recursive: true, force: true });
  });
});
