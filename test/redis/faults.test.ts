import { describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import type { RedisTransport } from "../../src/redis/transport.ts";
import { upstashTransport } from "../../src/redis/upstash.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import { type ProxyFault, startProxy } from "../support/proxy.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { freePort, startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { startUpstashBridge } from "../support/upstash.ts";
import { startWire, type Wire, WIRE_NAMES } from "../support/wire.ts";

/** Of the transport, in most of these tests: short, so that they are. */
const DEADLINE_MS = 250;
/** In which a caller has its 503, whatever the store does. */
const ANSWER_WITHIN_MS = 2_000;

interface Answer {
  readonly status: number;
  readonly code: string | undefined;
}
const UNAVAILABLE: Answer = { status: 503, code: "store_unavailable" };
const REFUSED: Answer = { status: 401, code: "ticket_refused" };
const MINTED: Answer = { status: 200, code: undefined };
const OPENED: Answer = { status: 101, code: undefined };

function serverOn(transport: RedisTransport): TestServer {
  return startServer({ store: redisTicketStore(transport) });
}

/** Asks for a ticket. Every 503 says when to come back, and comes in time. */
async function mint(server: TestServer): Promise<Answer> {
  const token = await server.token();
  return timed(async () => {
    const answer = await server.mint(token);
    return { status: answer.status, headers: answer.headers, body: await answer.text() };
  });
}

/** Opens a socket with a ticket, at the wire. */
function upgrade(server: TestServer, ticket: string): Promise<Answer> {
  return timed(() => sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`)));
}

/** Opens a socket with a visitor's cookie. */
function upgradeVisitor({ port, origin }: TestServer, cookie: string): Promise<Answer> {
  const headers = { Origin: origin, Cookie: cookie };
  return timed(() => sendRaw(port, handshake("/ws/chat", headers, { host: `127.0.0.1:${port}` })));
}

/** Asks whether the server is ready, past what it remembers of the last time. */
async function ready(server: TestServer): Promise<number> {
  server.clock.advance(1_000);
  return (await fetch(`${server.origin}/readyz`)).status;
}

async function timed(
  ask: () => Promise<{ status: number; headers: Headers; body: string }>,
): Promise<Answer> {
  const startedAtMs = performance.now();
  const { status, headers, body } = await ask();
  expect(performance.now() - startedAtMs).toBeLessThan(ANSWER_WITHIN_MS);
  if (status < 300) return { status, code: undefined };
  if (status === 503) expect(headers.get("retry-after")).toBe("2");
  return { status, code: JSON.parse(body).code };
}

/** A ticket and a socket, as if nothing had ever been wrong. */
async function expectHealthy(server: TestServer): Promise<void> {
  expect(await upgrade(server, await server.ticket())).toEqual(OPENED);
  expect(await ready(server)).toBe(200);
}

/** Neither a ticket nor a socket, and the load balancer is told. */
async function expectUnavailable(server: TestServer, ticket: string): Promise<void> {
  expect(await Promise.all([mint(server), upgrade(server, ticket)])).toEqual([
    UNAVAILABLE,
    UNAVAILABLE,
  ]);
  expect(await ready(server)).toBe(503);
}

/** A ticket as it looks, that no store has. */
const UNKNOWN_TICKET = "A".repeat(43);

/** What can be wrong with a Redis that both transports reach, and what still works then. */
const REDIS_FAULTS: readonly {
  readonly name: string;
  begin(wire: Wire): unknown;
  end(wire: Wire): unknown;
  readonly mint: Answer;
  readonly upgrade: Answer;
  /** A visitor's handshake, which asks whether it was signed out. */
  readonly visitor: Answer;
}[] = [
  {
    name: "is gone",
    begin: (wire) => wire.goDown(),
    end: (wire) => wire.comeBack(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
  },
  {
    name: "is frozen",
    begin: (wire) => wire.redis.freeze(),
    end: (wire) => wire.redis.thaw(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
  },
  {
    name: "takes commands and says nothing",
    begin: (wire) => wire.stall(),
    end: (wire) => wire.heal(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
  },
  {
    name: "is paused for a failover",
    begin: ({ redis }) => redis.command("CLIENT", "PAUSE", "60000", "WRITE"),
    end: ({ redis }) => redis.command("CLIENT", "UNPAUSE"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    // Its question waits behind the others on the same connection.
    visitor: UNAVAILABLE,
  },
  {
    name: "has become a read-only replica",
    begin: ({ redis }) => redis.command("REPLICAOF", "127.0.0.1", String(freePort())),
    end: ({ redis }) => redis.command("REPLICAOF", "NO", "ONE"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "has lost its replicas and wants one for each write",
    begin: ({ redis }) => redis.command("CONFIG", "SET", "min-replicas-to-write", "1"),
    end: ({ redis }) => redis.command("CONFIG", "SET", "min-replicas-to-write", "0"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "lets this user near other keys only",
    begin: ({ redis }) => redis.command("ACL", "SETUSER", "default", "resetkeys", "~other:*"),
    end: ({ redis }) => redis.command("ACL", "SETUSER", "default", "allkeys"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
  },
  {
    name: "doesn't let this user remove anything",
    begin: ({ redis }) => redis.command("ACL", "SETUSER", "default", "-getdel"),
    end: ({ redis }) => redis.command("ACL", "SETUSER", "default", "+getdel"),
    mint: MINTED,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "has no memory left and evicts nothing",
    begin: ({ redis }) => redis.command("CONFIG", "SET", "maxmemory", "1"),
    end: ({ redis }) => redis.command("CONFIG", "SET", "maxmemory", "0"),
    mint: UNAVAILABLE,
    upgrade: OPENED,
    visitor: OPENED,
  },
  {
    name: "has lost everything",
    begin: ({ redis }) => redis.command("FLUSHALL"),
    end: () => {},
    mint: MINTED,
    upgrade: REFUSED,
    visitor: OPENED,
  },
];

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`${name} transport`, () => {
    for (const fault of REDIS_FAULTS) {
      test(`while Redis ${fault.name}, answers ${fault.mint.status} and ${fault.upgrade.status}; open sockets live, and it recovers by itself`, async () => {
        await using wire = await startWire(name);
        await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
        await using socket = await server.openUser("bob");
        const ticket = await server.ticket();
        const cookie = await server.visitorCookie();
        await fault.begin(wire);
        const takes = wire.sent("GETDEL");
        const asked = [mint(server), upgrade(server, ticket), upgradeVisitor(server, cookie)];
        expect(await Promise.all(asked)).toEqual([fault.mint, fault.upgrade, fault.visitor]);
        expect(wire.sent("GETDEL") - takes).toBeLessThanOrEqual(1);
        expect(await ready(server)).toBe(fault.upgrade === UNAVAILABLE ? 503 : 200);
        socket.send({ type: "USER_TO_ANON", to: "A".repeat(22), content: "still here", ref: "1" });
        expect(await socket.next((frame) => frame.type === "ACK")).toMatchObject({ ref: "1" });
        await fault.end(wire);
        await expectHealthy(server);
      });
    }

    test("has its 503 out within two seconds with the deadlines it comes with", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport());
      const ticket = await server.ticket();
      wire.redis.freeze();
      expect(await Promise.all([mint(server), upgrade(server, ticket)])).toEqual([
        UNAVAILABLE,
        UNAVAILABLE,
      ]);
      wire.redis.thaw();
      await expectHealthy(server);
    });

    test("starts without its Redis, is not ready, and gets ready by itself", async () => {
      await using wire = await startWire(name);
      await wire.goDown();
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      await expectUnavailable(server, UNKNOWN_TICKET);
      expect((await fetch(`${server.origin}/healthz`)).status).toBe(200);
      await wire.comeBack();
      await expectHealthy(server);
    });

    test("comes back after an outage of many failed commands, as often as there is one", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      for (let outage = 0; outage < 3; outage++) {
        await expectHealthy(server);
        await wire.goDown();
        for (let asked = 0; asked < 30; asked++) {
          expect(await mint(server)).toEqual(UNAVAILABLE);
        }
        await wire.comeBack();
      }
      await expectHealthy(server);
    });

    test("doesn't send a take again that got no answer in time, and the ticket is spent", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      const ticket = await server.ticket();
      wire.redis.freeze();
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      wire.redis.thaw();
      while ((await wire.redis.ticketKeys()).length > 0) await Bun.sleep(1);
      expect(wire.sent("GETDEL")).toBe(1);
      expect(server.server.socketCount).toBe(0);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
    });

    test("answers 503 where the reply to the take was lost, and 401 to the ticket from then on", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      const ticket = await server.ticket();
      wire.loseReplies();
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      wire.heal();
      expect(wire.sent("GETDEL")).toBe(1);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
      await expectHealthy(server);
    });

    test("admits nobody by a record that stands under another ticket's hash", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      const mine = await server.ticket("alice");
      const [key] = (await wire.redis.ticketKeys()) as [string];
      const yours = await server.ticket("bob");
      const keys = await wire.redis.ticketKeys();
      const other = keys.find((one) => one !== key) as string;
      const record = String(await wire.redis.command("GET", key));
      await wire.redis.command("SET", other, record);
      expect(await upgrade(server, yours)).toEqual(REFUSED);
      expect(await upgrade(server, mine)).toEqual(OPENED);
    });

    test("answers 503 where another type of value stands under the ticket's key", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      const ticket = await server.ticket();
      const [key] = (await wire.redis.ticketKeys()) as [string];
      await wire.redis.command("DEL", key);
      await wire.redis.command("RPUSH", key, "a");
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      await expectHealthy(server);
    });

    test("refuses a ticket that Redis kept beyond its time", async () => {
      await using wire = await startWire(name);
      await using server = serverOn(wire.transport({ deadlineMs: DEADLINE_MS }));
      const [ticket, last] = [await server.ticket(), await server.ticket()];
      for (const key of await wire.redis.ticketKeys()) {
        await wire.redis.command("PERSIST", key);
      }
      server.clock.advance(29_999);
      expect(await upgrade(server, last)).toEqual(OPENED);
      server.clock.advance(1);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
    });
  });
}

describeWith("redis-server")("native transport", () => {
  const native = (url: string, tls?: Bun.TLSOptions) =>
    nativeRedisTransport({ url, deadlineMs: DEADLINE_MS, ...(tls && { tls }) });

  test.each<[string, string, ProxyFault, number]>([
    ["before the ticket's command", "EVAL", "reset-before", 0],
    ["in the middle of the ticket's command", "EVAL", "reset-during", 0],
    ["before the answer to the ticket's command", "EVAL", "reset-after", 1],
    ["after the ticket's command for good", "EVAL", "drop-reply", 1],
  ])(
    "answers 503 to a mint whose connection breaks %s, sent once",
    async (_, command, kind, kept) => {
      await using redis = await startRedis();
      await using proxy = await startProxy(redis);
      await using server = serverOn(native(proxy.url));
      proxy.fault = { command, kind };
      expect(await mint(server)).toEqual(UNAVAILABLE);
      expect(proxy.count("EVAL")).toBe(1);
      expect(await redis.ticketKeys()).toHaveLength(kept);
      proxy.fault = undefined;
      await expectHealthy(server);
    },
  );

  test.each<[string, ProxyFault, Answer]>([
    ["before the take", "reset-before", OPENED],
    ["in the middle of the take", "reset-during", OPENED],
    ["before the answer to the take", "reset-after", REFUSED],
    ["after the take for good", "drop-reply", REFUSED],
  ])(
    "answers 503 to an upgrade whose connection breaks %s, sent once",
    async (_, kind, afterwards) => {
      await using redis = await startRedis();
      await using proxy = await startProxy(redis);
      await using server = serverOn(native(proxy.url));
      const ticket = await server.ticket();
      proxy.fault = { command: "GETDEL", kind };
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      expect(proxy.count("GETDEL")).toBe(1);
      expect(server.server.socketCount).toBe(0);
      proxy.fault = undefined;
      expect(await upgrade(server, ticket)).toEqual(afterwards);
      await expectHealthy(server);
    },
  );

  test("never sends a take late that still waited for its connection", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    await using minting = serverOn(native(redis.url));
    await using server = serverOn(native(proxy.url));
    const ticket = await minting.ticket();
    proxy.freeze();
    expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
    proxy.thaw();
    await expectHealthy(server);
    // The two of a healthy server: one take, and one to see whether it is ready.
    expect(proxy.count("GETDEL")).toBe(2);
    expect(await redis.ticketKeys()).toHaveLength(1);
    expect(await upgrade(server, ticket)).toEqual(OPENED);
  });

  test("makes a new connection after Redis closed the one it had", async () => {
    await using redis = await startRedis();
    await using server = serverOn(native(redis.url));
    for (let round = 0; round < 5; round++) {
      await expectHealthy(server);
      await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      // The first command may still meet the dead connection; it is not repeated.
      expect([MINTED, UNAVAILABLE]).toContainEqual(await mint(server));
    }
    await expectHealthy(server);
  });

  test("keeps one connection over many tickets, and none that failed", async () => {
    await using redis = await startRedis();
    await using server = serverOn(native(redis.url));
    const tickets = await Promise.all(Array.from({ length: 50 }, () => server.ticket()));
    const answers = await Promise.all(tickets.map((ticket) => upgrade(server, ticket)));
    expect(answers).toEqual(tickets.map(() => OPENED));
    const clients = async () =>
      String(await redis.command("CLIENT", "LIST"))
        .trim()
        .split("\n");
    while ((await clients()).length !== 2) await Bun.sleep(5);
    for (let round = 0; round < 5; round++) {
      redis.freeze();
      await mint(server);
      redis.thaw();
      expect(await mint(server)).toEqual(MINTED);
    }
    while ((await clients()).length !== 2) await Bun.sleep(5);
  });

  test.each([
    ["a wrong password", "app:wrong@"],
    ["an unknown user", "nobody:right@"],
    ["no password where one is needed", ""],
  ])("answers 503 with %s, and asks once each time", async (_, credentials) => {
    await using redis = await startRedis(["--requirepass", "default password"]);
    await redis.command("ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all");
    await using server = serverOn(native(`redis://${credentials}127.0.0.1:${redis.port}`));
    const received = async () => {
      const stats = String(await redis.command("INFO", "stats"));
      return Number(/total_connections_received:(\d+)/.exec(stats)?.[1]);
    };
    const before = await received();
    for (let round = 0; round < 5; round++) await expectUnavailable(server, UNKNOWN_TICKET);
    // Three requests a round, two of them over the same connection where they can, and this question.
    expect((await received()) - before).toBeLessThanOrEqual(5 * 3 + 1);
    const lines = server.logLines.join("");
    expect(lines).toContain("store_failed");
    expect(lines).not.toContain("wrong");
  });

  test("recovers by itself once its password is right", async () => {
    await using redis = await startRedis();
    const setPassword = (word: string) =>
      redis.command("ACL", "SETUSER", "app", "on", "resetpass", `>${word}`, "~*", "&*", "+@all");
    await setPassword("right");
    await using server = serverOn(native(`redis://app:right@127.0.0.1:${redis.port}`));
    await expectHealthy(server);
    const ticket = await server.ticket();
    await setPassword("other");
    await redis.command("CLIENT", "KILL", "USER", "app");
    await expectUnavailable(server, ticket);
    await setPassword("right");
    await expectHealthy(server);
  });

  test("is not ready on a Redis too old to remove and return in one step", async () => {
    await using redis = await startRedis(["--rename-command", "GETDEL", ""]);
    await using server = serverOn(native(redis.url));
    const ticket = await server.ticket();
    expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
    expect(await ready(server)).toBe(503);
    expect(server.server.socketCount).toBe(0);
  });

  test("pairs every reply with its own command through many forced drops", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    const direct = redisTicketStore(native(redis.url));
    const store = redisTicketStore(native(proxy.url));
    const tally = { own: 0, none: 0, failed: 0 };
    for (let round = 0; round < 40; round++) {
      const hashes = Array.from({ length: 25 }, (_, index) => `${round}-${index}`);
      await Promise.all(
        hashes.map((hash) =>
          direct.put(
            hash,
            {
              purpose: "ws",
              hash,
              user: hash,
              session: "s",
              issuedAtMs: 1,
              expiresAtMs: 1,
              tokenExpiresAtMs: 1,
            },
            60_000,
          ),
        ),
      );
      const takes = hashes.map(async (hash, index) => {
        for (let turn = 0; turn < index; turn++) await Promise.resolve();
        if (index % 5 === round % 5) await new Promise((resolve) => setImmediate(resolve));
        const record = await store.take(hash).catch(() => null);
        if (record === null) tally.failed++;
        else if (record === undefined) tally.none++;
        else {
          expect([record.hash, record.user]).toEqual([hash, hash]);
          tally.own++;
        }
      });
      await new Promise((resolve) => setImmediate(resolve));
      if (round % 2) proxy.cut();
      await Promise.all(takes);
    }
    // Each was asked for once: there is none that was taken before.
    expect(tally.none).toBe(0);
    expect(tally.own + tally.failed).toBe(1_000);
    expect(tally.own).toBeGreaterThan(400);
    expect(tally.failed).toBeGreaterThan(0);
    await direct.close();
    await store.close();
  });
});

describe("native transport, something else at its address", () => {
  /** Listens, and answers whatever it hears with these bytes. */
  function answering(answer: string | ((socket: Bun.Socket) => void)) {
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          if (typeof answer === "string") socket.write(answer);
          else answer(socket);
        },
      },
    });
    const { port } = listener;
    return { port, [Symbol.dispose]: () => listener.stop(true) };
  }

  test.each<[string, string | ((socket: Bun.Socket) => void)]>([
    ["a Redis that still loads its data", "-LOADING Redis is loading the dataset in memory\r\n"],
    ["a Redis with no connection to spare", "-ERR max number of clients reached\r\n"],
    ["a Redis in protected mode", "-DENIED Redis is running in protected mode\r\n"],
    ["a web server", "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"],
    ["a mail server", "220 mail.example ESMTP\r\n"],
    ["noise", "\0\xff\xfe\x13\x37\r\n".repeat(50)],
    ["replies without end", "*1\r\n".repeat(5_000)],
    ["a string that never ends", "$1000000\r\nabc"],
    ["a string of negative length", "$-5\r\n"],
    ["a number for every reply", ":1\r\n"],
    ["nothing for every reply", "_\r\n"],
    ["silence", () => {}],
    ["a hang-up", (socket) => void socket.end()],
  ])("answers 503 within its time to %s", async (_, answer) => {
    using listener = answering(answer);
    await using server = serverOn(
      nativeRedisTransport({ url: `redis://127.0.0.1:${listener.port}`, deadlineMs: DEADLINE_MS }),
    );
    expect(await mint(server)).toEqual(UNAVAILABLE);
    // A null in place of a handshake is as good as none; in place of a ticket it means that there is none.
    const upgraded = await upgrade(server, UNKNOWN_TICKET);
    expect([UNAVAILABLE, REFUSED]).toContainEqual(upgraded);
    expect(server.server.socketCount).toBe(0);
  });

  test("answers 503 within its time to a name that doesn't resolve", async () => {
    await using server = serverOn(
      nativeRedisTransport({ url: "redis://redis.invalid:6379", deadlineMs: DEADLINE_MS }),
    );
    await expectUnavailable(server, UNKNOWN_TICKET);
  });
});

describe("upstash transport, bad answers", () => {
  const json = (body: unknown, init?: ResponseInit) => () => Response.json(body, init);
  const text = (body: BodyInit, init?: ResponseInit) => () => new Response(body, init);
  const html = { "Content-Type": "text/html" };
  const huge = `{"result":1${" ".repeat(9 * 1024 * 1024)}}`;

  test.each<[string, () => Response]>([
    ["401", json({ error: "WRONGPASS invalid or missing auth token" }, { status: 401 })],
    ["403", json({ error: "NOPERM this user has no permissions" }, { status: 403 })],
    ["404 from somebody else", text("<h1>Not found</h1>", { status: 404, headers: html })],
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
    ["a result that is an object", json({ result: { purpose: "ws", user: "mallory" } })],
    ["a result that is an array", json({ result: [1] })],
    ["JSON that breaks off", text('{"result":"O')],
    ["two JSON documents", text('{"result":1}{"result":1}')],
    ["bytes that are no UTF-8", text(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d]))],
    ["gzip that is none", text('{"result":1}', { headers: { "Content-Encoding": "gzip" } })],
    ["a result with more space around it than is read", text(huge)],
    ["the same in gzip", text(Bun.gzipSync(huge), { headers: { "Content-Encoding": "gzip" } })],
    ["a body without end", () => new Response(endless())],
    ["a body that stops in the middle", () => new Response(stalling())],
  ])("answers 503 at mint and upgrade to %s, asking once each", async (_, fault) => {
    await using bridge = await startUpstashBridge(`redis://127.0.0.1:${freePort()}`);
    await using server = serverOn(upstashTransport({ ...bridge, deadlineMs: 1_000 }));
    bridge.fault = fault;
    expect(await Promise.all([mint(server), upgrade(server, UNKNOWN_TICKET)])).toEqual([
      UNAVAILABLE,
      UNAVAILABLE,
    ]);
    expect([...bridge.requests].sort()).toEqual(["EVAL", "GETDEL"]);
    expect(server.server.socketCount).toBe(0);
  });

  test.each<[string, string | null]>([
    ["nothing", null],
    ["text that is no record", "alice"],
    ["the status of another command", "OK"],
    ["a record in base64", Buffer.from('{"purpose":"ws"}').toString("base64")],
    ["a number in text", "123"],
  ])("answers 503 at mint and 401 at the upgrade to %s", async (_, result) => {
    await using bridge = await startUpstashBridge(`redis://127.0.0.1:${freePort()}`);
    await using server = serverOn(upstashTransport({ ...bridge, deadlineMs: DEADLINE_MS }));
    bridge.fault = json({ result });
    expect(await mint(server)).toEqual(UNAVAILABLE);
    expect(await upgrade(server, UNKNOWN_TICKET)).toEqual(REFUSED);
  });

  test("reads an answer that is properly compressed", async () => {
    await using bridge = await startUpstashBridge(`redis://127.0.0.1:${freePort()}`);
    await using server = serverOn(upstashTransport({ ...bridge, deadlineMs: DEADLINE_MS }));
    bridge.fault = text(Bun.gzipSync('{"result":1}'), {
      headers: { "Content-Encoding": "gzip" },
    });
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
      await using bridge = await startUpstashBridge(`redis://127.0.0.1:${freePort()}`);
      await using server = serverOn(upstashTransport({ ...bridge, deadlineMs: DEADLINE_MS }));
      bridge.fault = () => Response.redirect(stranger.url.href, status);
      await expectUnavailable(server, UNKNOWN_TICKET);
      expect(strangers).toBe(0);
    },
  );

  test.each([
    ["a token that isn't its own", { token: "another-token" }],
    ["a name that doesn't resolve", { url: "https://redis.invalid" }],
    ["an address where nobody listens", { url: `http://127.0.0.1:${freePort()}` }],
  ])("answers 503 with %s", async (_, wrong) => {
    await using bridge = await startUpstashBridge(`redis://127.0.0.1:${freePort()}`);
    await using server = serverOn(
      upstashTransport({ ...bridge, deadlineMs: DEADLINE_MS, ...wrong }),
    );
    await expectUnavailable(server, UNKNOWN_TICKET);
    expect(bridge.requests).toEqual([]);
  });

  function endless(): ReadableStream<Uint8Array> {
    return new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(64 * 1024).fill(32));
      },
    });
  }

  function stalling(): ReadableStream<Uint8Array> {
    return new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"result":'));
      },
    });
  }
});

describeWith("redis-server")("upstash transport, many at once", () => {
  test("each ticket that is taken is a request of its own, so that none shares another's fate", async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    await using server = serverOn(upstashTransport({ ...bridge, deadlineMs: DEADLINE_MS }));
    const tickets = await Promise.all(Array.from({ length: 10 }, () => server.ticket()));
    const takes = tickets.map((ticket) => upgrade(server, ticket));
    expect(await Promise.all(takes)).toEqual(tickets.map(() => OPENED));
    expect(bridge.requests.filter((name) => name === "GETDEL")).toHaveLength(10);
  });
});

describeWith("openssl")("a certificate that nobody vouches for", () => {
  async function makeCertificate() {
    const directory = await mkdtemp(join(tmpdir(), "ws-ticket-tls-"));
    const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
    const made = Bun.spawnSync([
      ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
      ...["-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=localhost"],
      ...["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
    ]);
    expect(made.exitCode).toBe(0);
    return {
      key,
      cert,
      [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
    };
  }

  describeWith("redis-server")("of a Redis", () => {
    test("makes for 503, and no command is sent; a known one is let pass", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using redis = await startRedis([
        ...["--tls-port", String(port), "--tls-auth-clients", "no"],
        ...["--tls-cert-file", files.cert, "--tls-key-file", files.key],
        ...["--tls-ca-cert-file", files.cert],
      ]);
      const url = `rediss://localhost:${port}`;
      await using server = serverOn(nativeRedisTransport({ url, deadlineMs: DEADLINE_MS }));
      await expectUnavailable(server, UNKNOWN_TICKET);
      const stats = String(await redis.command("INFO", "commandstats"));
      expect(stats).not.toMatch(/cmdstat_(eval|getdel):/);
      const tls = { ca: await Bun.file(files.cert).text() };
      await using trusting = serverOn(nativeRedisTransport({ url, tls }));
      await expectHealthy(trusting);
    });

    test("makes for 503 where the certificate is another host's", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using redis = await startRedis([
        ...["--tls-port", String(port), "--tls-auth-clients", "no"],
        ...["--tls-cert-file", files.cert, "--tls-key-file", files.key],
        ...["--tls-ca-cert-file", files.cert],
      ]);
      const tls = { ca: await Bun.file(files.cert).text() };
      const url = `rediss://127.0.0.2:${port}`;
      await redis.command("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2");
      await using server = serverOn(nativeRedisTransport({ url, deadlineMs: DEADLINE_MS, tls }));
      await expectUnavailable(server, UNKNOWN_TICKET);
    });

    test("is no matter to a client that speaks no TLS: 503", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using _redis = await startRedis([
        ...["--tls-port", String(port), "--tls-auth-clients", "no"],
        ...["--tls-cert-file", files.cert, "--tls-key-file", files.key],
        ...["--tls-ca-cert-file", files.cert],
      ]);
      const url = `redis://127.0.0.1:${port}`;
      await using server = serverOn(nativeRedisTransport({ url, deadlineMs: DEADLINE_MS }));
      await expectUnavailable(server, UNKNOWN_TICKET);
    });
  });

  test("of a REST server makes for 503, and no request arrives", async () => {
    await using files = await makeCertificate();
    let requests = 0;
    using rest = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { key: Bun.file(files.key), cert: Bun.file(files.cert) },
      fetch() {
        requests++;
        return Response.json({ result: 1 });
      },
    });
    await using server = serverOn(
      upstashTransport({ url: rest.url.href, token: "token", deadlineMs: DEADLINE_MS }),
    );
    await expectUnavailable(server, UNKNOWN_TICKET);
    expect(requests).toBe(0);
  });
});
