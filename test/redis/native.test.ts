import { describe, expect, spyOn, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { TicketRecord } from "../../src/gate/store.ts";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import { fakeClock, settle, underClock } from "../support/clock.ts";
import {
  atDeadline,
  expectHealthy,
  expectUnavailable,
  mint,
  MINTED,
  OPENED,
  type Outcome,
  ready,
  REFUSED,
  serverOn,
  UNAVAILABLE,
  UNKNOWN_TICKET,
  upgrade,
} from "../support/outage.ts";
import { type ProxyFault, startProxy } from "../support/proxy.ts";
import { freePort, startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { TestServer } from "../support/server.ts";
import { reached } from "../support/wire.ts";

function serverAt(url: string, tls?: Bun.TLSOptions): TestServer {
  return serverOn((options) => nativeRedisTransport({ url, ...options, ...(tls && { tls }) }));
}

/** Connections that Redis has, this question's own left out. */
async function connections(redis: TestRedis): Promise<string[]> {
  const list = String(await redis.command("CLIENT", "LIST", "TYPE", "normal"));
  const lines = list.trim().split("\n");
  return lines.filter((line) => !line.includes("cmd=client|list"));
}

/** Resolves when Redis has this many. */
async function hasConnections(redis: TestRedis, count: number): Promise<void> {
  while ((await connections(redis)).length !== count) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describeWith("redis-server")("native transport", () => {
  test.each<[string, ProxyFault, number]>([
    ["before the ticket's command", "reset-before", 0],
    ["in the middle of the ticket's command", "reset-during", 0],
    ["before the reply to the ticket's command", "reset-after", 1],
    ["after the ticket's command, without being closed", "drop-reply", 1],
  ])(
    "answers 503 to a mint whose connection breaks %s, and sends it once",
    async (_, kind, kept) => {
      await using redis = await startRedis();
      await using proxy = await startProxy(redis);
      await using server = serverAt(proxy.url);
      proxy.fault = { command: "EVAL", kind };
      const minting = mint(server);
      const isSilent = kind === "drop-reply";
      const sent = reached(proxy.count, ["EVAL"]);
      expect(await (isSilent ? atDeadline(server, sent, minting) : minting)).toEqual(UNAVAILABLE);
      expect(proxy.count("EVAL")).toBe(1);
      expect(await redis.ticketKeys()).toHaveLength(kept);
      proxy.fault = undefined;
      await expectHealthy(server);
    },
  );

  test.each<[string, ProxyFault, Outcome]>([
    ["before the take", "reset-before", OPENED],
    ["in the middle of the take", "reset-during", OPENED],
    ["before the reply to the take", "reset-after", REFUSED],
    ["after the take, without being closed", "drop-reply", REFUSED],
  ])(
    "answers 503 to an upgrade whose connection breaks %s, and sends it once",
    async (_, kind, afterwards) => {
      await using redis = await startRedis();
      await using proxy = await startProxy(redis);
      await using server = serverAt(proxy.url);
      const ticket = await server.ticket();
      proxy.fault = { command: "GETDEL", kind };
      const opening = upgrade(server, ticket);
      const isSilent = kind === "drop-reply";
      const sent = reached(proxy.count, ["GETDEL"]);
      expect(await (isSilent ? atDeadline(server, sent, opening) : opening)).toEqual(UNAVAILABLE);
      expect(proxy.count("GETDEL")).toBe(1);
      expect(server.server.socketCount).toBe(0);
      proxy.fault = undefined;
      expect(await upgrade(server, ticket)).toEqual(afterwards);
      await expectHealthy(server);
    },
  );

  test("never sends a take late that was still waiting for its connection", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    await using minting = serverAt(redis.url);
    await using server = serverAt(proxy.url);
    const ticket = await minting.ticket();
    // Bun's client may hold back what it was given when it is closed at once, so the wire alone says too little.
    using send = spyOn(Bun.RedisClient.prototype, "send");
    const takes = () => send.mock.calls.filter(([name]) => name === "GETDEL").length;
    proxy.freeze();
    const opening = upgrade(server, ticket);
    expect(await atDeadline(server, reached(proxy.count, ["HELLO"]), opening)).toEqual(UNAVAILABLE);
    proxy.thaw();
    await expectHealthy(server);
    expect(takes()).toBe(2);
    // The two of a healthy server: one take, and one to see whether it is ready.
    expect(proxy.count("GETDEL")).toBe(2);
    expect(await redis.ticketKeys()).toHaveLength(1);
    expect(await upgrade(server, ticket)).toEqual(OPENED);
  });

  test("makes a new connection after Redis closed the one it had", async () => {
    await using redis = await startRedis();
    await using server = serverAt(redis.url);
    for (let round = 0; round < 5; round++) {
      await expectHealthy(server);
      await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      // The first command may still meet the dead connection; it is not repeated.
      expect([MINTED, UNAVAILABLE]).toContainEqual(await mint(server));
    }
    await expectHealthy(server);
  });

  test("has a new connection before the first command after Redis closed an idle one", async () => {
    await using redis = await startRedis();
    const transport = nativeRedisTransport({ url: redis.url });
    expect(await transport.command(["PING"])).toBe("PONG");
    await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await hasConnections(redis, 0);
    await settle();
    expect(await transport.command(["PING"])).toBe("PONG");
    await transport.close();
  });

  test("keeps one connection over many tickets, and none that failed", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    await using server = serverAt(proxy.url);
    const tickets = await Promise.all(Array.from({ length: 50 }, () => server.ticket()));
    const outcomes = await Promise.all(tickets.map((ticket) => upgrade(server, ticket)));
    expect(outcomes).toEqual(tickets.map(() => OPENED));
    await hasConnections(redis, 1);
    expect(proxy.count("HELLO")).toBe(1);
    for (let round = 0; round < 5; round++) {
      redis.freeze();
      const sent = reached(proxy.count, ["EVAL"]);
      expect(await atDeadline(server, sent, mint(server))).toEqual(UNAVAILABLE);
      redis.thaw();
      expect(await mint(server)).toEqual(MINTED);
    }
    await hasConnections(redis, 1);
  });

  test.each([
    ["READONLY", "yes", ["SET", "key", "2"]],
    ["MASTERDOWN", "no", ["GET", "key"]],
  ])(
    "drops its connection at %s, so that the next one may find another server",
    async (code, servesStaleData, command) => {
      await using redis = await startRedis();
      const transport = nativeRedisTransport({ url: redis.url });
      await transport.command(["SET", "key", "1"]);
      const [first] = await connections(redis);
      await redis.command("CONFIG", "SET", "replica-serve-stale-data", servesStaleData);
      await redis.command("REPLICAOF", "127.0.0.1", String(freePort()));
      const fault = await transport.command(command).catch((error) => error);
      expect(fault).toMatchObject({ name: "RedisError", code });
      await hasConnections(redis, 0);
      await redis.command("REPLICAOF", "NO", "ONE");
      expect(await transport.command(["SET", "key", "3"])).toBe("OK");
      const [second, ...more] = await connections(redis);
      expect(more).toEqual([]);
      expect(idOf(second)).toBeGreaterThan(idOf(first));
      await transport.close();
    },
  );

  test("keeps its connection at any other error", async () => {
    await using redis = await startRedis();
    const transport = nativeRedisTransport({ url: redis.url });
    await transport.command(["SET", "key", "text"]);
    const [first] = await connections(redis);
    for (const command of [["INCR", "key"], ["NONSENSE"], ["GET"], ["LPUSH", "key", "1"]]) {
      const fault = await transport.command(command).catch((error) => error);
      expect(fault).toMatchObject({ name: "RedisError" });
    }
    expect(await transport.command(["GET", "key"])).toBe("text");
    const all = await connections(redis);
    expect(all.map(idOf)).toEqual([idOf(first)]);
    await transport.close();
  });

  function idOf(client: string | undefined): number {
    return Number(/\bid=(\d+)/.exec(client ?? "")?.[1]);
  }

  test.each([
    ["a wrong password", "app:canary@"],
    ["an unknown user", "canary:right@"],
    ["no password where one is needed", ""],
  ])("answers 503 with %s, and tries once each time", async (_, credentials) => {
    await using redis = await startRedis(["--requirepass", "default password"]);
    await redis.command("ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all");
    await using server = serverAt(`redis://${credentials}127.0.0.1:${redis.port}`);
    const received = async () => {
      const stats = String(await redis.command("INFO", "stats"));
      return Number(/total_connections_received:(\d+)/.exec(stats)?.[1]);
    };
    const before = await received();
    for (let round = 0; round < 5; round++) await expectUnavailable(server, UNKNOWN_TICKET);
    // Three requests a round, at most one diagnosis for each (a slow machine lets minutes pass on this clock),
    // and this question.
    expect((await received()) - before).toBeLessThanOrEqual(5 * 3 * 2 + 1);
    const lines = server.logLines.join("");
    expect(lines).toContain('"event":"store_failed","code":"wrong_password"');
    expect(lines).not.toContain("canary");
  });

  test("recovers by itself once its password is right", async () => {
    await using redis = await startRedis();
    const setPassword = (word: string) =>
      redis.command("ACL", "SETUSER", "app", "on", "resetpass", `>${word}`, "~*", "&*", "+@all");
    await setPassword("right");
    await using server = serverAt(`redis://app:right@127.0.0.1:${redis.port}`);
    await expectHealthy(server);
    const ticket = await server.ticket();
    await setPassword("other");
    await redis.command("CLIENT", "KILL", "USER", "app");
    await expectUnavailable(server, ticket);
    await setPassword("right");
    await expectHealthy(server);
  });

  test("is not ready on a Redis too old for GETDEL", async () => {
    await using redis = await startRedis(["--rename-command", "GETDEL", ""]);
    await using server = serverAt(redis.url);
    const ticket = await server.ticket();
    expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
    expect(await ready(server)).toBe(503);
    expect(server.server.socketCount).toBe(0);
  });

  test("pairs every reply with its own command through many cut connections", async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy(redis);
    const direct = redisTicketStore(nativeRedisTransport({ url: redis.url }));
    const store = redisTicketStore(nativeRedisTransport({ url: proxy.url }));
    const tally = { own: 0, none: 0, failed: 0 };
    const recordOf = (hash: string): TicketRecord => ({
      hash,
      purpose: "socket",
      expiresAtMs: 1,
      identity: { kind: "user", id: hash, session: "s", issuedAtMs: 1, expiresAtMs: 1 },
    });
    for (let round = 0; round < 40; round++) {
      const hashes = Array.from({ length: 25 }, (_, index) => `${round}-${index}`);
      await Promise.all(hashes.map((hash) => direct.put(hash, recordOf(hash), 60_000)));
      const takes = hashes.map(async (hash, index) => {
        for (let turn = 0; turn < index; turn++) await Promise.resolve();
        if (index % 5 === round % 5) await new Promise((resolve) => setImmediate(resolve));
        const record = await store.take(hash).catch(() => null);
        if (record === null) tally.failed++;
        else if (record === undefined) tally.none++;
        else {
          expect(record).toEqual(recordOf(hash));
          tally.own++;
        }
      });
      await new Promise((resolve) => setImmediate(resolve));
      if (round % 2) proxy.cut();
      await Promise.all(takes);
    }
    // Each was taken once: there is none that was taken before.
    expect(tally.none).toBe(0);
    expect(tally.own + tally.failed).toBe(1_000);
    expect(tally.own).toBeGreaterThan(400);
    expect(tally.failed).toBeGreaterThan(0);
    await direct.close();
    await store.close();
  });
});

describe("native transport, something else at its address", () => {
  /** Listens, and answers whatever arrives with these bytes. */
  function answering(answer: string | ((socket: Bun.Socket) => void)) {
    let connections = 0;
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: () => void connections++,
        data(socket) {
          if (typeof answer === "string") socket.write(answer);
          else answer(socket);
        },
      },
    });
    const { port } = listener;
    return {
      url: `redis://127.0.0.1:${port}`,
      get connections() {
        return connections;
      },
      [Symbol.dispose]: () => listener.stop(true),
    };
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
    ["a closed connection", (socket) => void socket.end()],
  ])("answers 503 within its time to %s", async (_, answer) => {
    using listener = answering(answer);
    await using server = serverAt(listener.url);
    const { clock } = server;
    expect(await underClock(clock, mint(server))).toEqual(UNAVAILABLE);
    // A null in place of a handshake is as good as none; in place of a ticket it means that there is none.
    const upgraded = await underClock(clock, upgrade(server, UNKNOWN_TICKET));
    expect([UNAVAILABLE, REFUSED]).toContainEqual(upgraded);
    expect(server.server.socketCount).toBe(0);
  });

  test("drops its connection at LOADING", async () => {
    let replies = 0;
    // A good handshake, and then a server that has begun to load.
    using listener = answering((socket) => {
      const isHandshake = replies++ % 2 === 0;
      socket.write(isHandshake ? "%0\r\n" : "-LOADING Redis is loading the dataset in memory\r\n");
    });
    const transport = nativeRedisTransport({ url: listener.url, clock: fakeClock() });
    for (let attempt = 1; attempt <= 3; attempt++) {
      const fault = await transport.command(["GET", "key"]).catch((error) => error);
      expect(fault).toMatchObject({ name: "RedisError", code: "LOADING" });
      expect(listener.connections).toBe(attempt);
    }
    await transport.close();
  });

  test("is diagnosed once in 30 s, however often it is tried", async () => {
    using listener = answering("-ERR max number of clients reached\r\n");
    const clock = fakeClock();
    const transport = nativeRedisTransport({ url: listener.url, clock });
    const attempt = () => transport.command(["GET", "key"]).catch((error) => error);
    for (let tries = 1; tries <= 3; tries++) {
      expect(await attempt()).toBeInstanceOf(Error);
      expect(listener.connections).toBe(tries + 1);
    }
    clock.advance(29_999);
    await attempt();
    expect(listener.connections).toBe(5);
    clock.advance(1);
    await attempt();
    expect(listener.connections).toBe(7);
    await transport.close();
  });

  test("keeps its new connection when an earlier one, given up long ago, fails", async () => {
    const sockets: Bun.Socket[] = [];
    using listener = answering((socket) => {
      if (!sockets.includes(socket)) sockets.push(socket);
      // The first one hangs. Others get a handshake, and then numbers.
      else if (socket !== sockets[0]) socket.write(":1\r\n");
      if (socket !== sockets[0] && sockets.at(-1) === socket) socket.write("%0\r\n");
    });
    const clock = fakeClock();
    const transport = nativeRedisTransport({ url: listener.url, clock });
    const hanging = transport.command(["GET", "key"]).catch((error) => error);
    while (sockets.length === 0) await settle(1);
    clock.advance(1_900);
    expect(await hanging).toMatchObject({ name: "DeadlineError" });
    expect(await transport.command(["GET", "key"])).toBe(1);
    sockets[0]?.end();
    // The third one is its diagnosis.
    while (listener.connections < 3) await settle(1);
    await Bun.sleep(10);
    expect(await transport.command(["GET", "key"])).toBe(1);
    expect(listener.connections).toBe(3);
    await transport.close();
  });

  test("answers 503 within its time to a name that doesn't resolve", async () => {
    await using server = serverAt("redis://redis.invalid:6379");
    await expectUnavailable(server, UNKNOWN_TICKET);
  });
});

describeWith("openssl")("a certificate that isn't trusted", () => {
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
    function startTls(port: number, files: { key: string; cert: string }): Promise<TestRedis> {
      return startRedis([
        ...["--tls-port", String(port), "--tls-auth-clients", "no"],
        ...["--tls-cert-file", files.cert, "--tls-key-file", files.key],
        ...["--tls-ca-cert-file", files.cert],
      ]);
    }

    test("means 503, and no command is sent; with its authority given it is accepted", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using redis = await startTls(port, files);
      const url = `rediss://localhost:${port}`;
      await using server = serverAt(url);
      await expectUnavailable(server, UNKNOWN_TICKET);
      const stats = String(await redis.command("INFO", "commandstats"));
      expect(stats).not.toMatch(/cmdstat_(eval|getdel):/);
      const tls = { ca: await Bun.file(files.cert).text() };
      await using trusting = serverAt(url, tls);
      await expectHealthy(trusting);
    });

    test("means 503 where the certificate is another host's", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using redis = await startTls(port, files);
      const tls = { ca: await Bun.file(files.cert).text() };
      await redis.command("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2");
      await using server = serverAt(`rediss://127.0.0.2:${port}`, tls);
      await expectUnavailable(server, UNKNOWN_TICKET);
    });

    test("means 503 for a client that doesn't speak TLS", async () => {
      await using files = await makeCertificate();
      const port = freePort();
      await using _redis = await startTls(port, files);
      await using server = serverAt(`redis://127.0.0.1:${port}`);
      await expectUnavailable(server, UNKNOWN_TICKET);
    });
  });
});
