import { describe, expect, mock, spyOn, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { createLog } from "../../src/lib/log.ts";
import { createGate } from "../../src/gate/gate.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { serve } from "../../src/sockets/serve.ts";
import { fakeClock, settle, underClock } from "../support/clock.ts";
import { openRawSocket } from "../support/frame.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startServer, TOKEN_SECRET } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { getAnswer, keptIn, writeOn } from "../support/writing.ts";

test("a user and a visitor write to each other", async () => {
  await using server = startServer();
  const visitor = await server.openVisitor();
  const user = await server.openUser("alice");
  visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", nickname: "Vis", ref: "1" });
  const got = await user.next();
  expect(got).toMatchObject({
    type: "ANON_TO_USER",
    to: "alice",
    content: "Hello",
    nickname: "Vis",
  });
  expect(await visitor.next((frame) => frame.type === "ACK")).toMatchObject({
    ref: "1",
    id: got.id,
  });
  user.send({ type: "USER_TO_ANON", to: got.from, content: "Hi", ref: "2" });
  expect(await visitor.next((frame) => frame.type === "USER_TO_ANON")).toMatchObject({
    from: "alice",
    to: got.from,
    content: "Hi",
    chatId: got.from,
  });
});

test("listens on loopback only, unless another address is given", async () => {
  await using server = startServer();
  expect(server.server.url.hostname).toBe("127.0.0.1");
});

test("throws when its port is taken, rather than share it", async () => {
  await using first = startServer();
  expect(() => startServer({ port: first.port })).toThrow(/EADDRINUSE|in use/);
});

test.each<[string, () => Response | Promise<Response>]>([
  [
    "throws",
    () => {
      throw new Error("canary");
    },
  ],
  ["rejects", () => Promise.reject(new Error("canary"))],
])("answers 500 without details when its own fetch %s, and keeps serving", async (_, fetch) => {
  const lines: string[] = [];
  const clock = fakeClock();
  const log = createLog({ level: "debug", clock, write: (line) => void lines.push(line) });
  await using gate = createGate({ users: { secret: TOKEN_SECRET }, clock, log });
  await using server = serve(gate, { message() {} }, { fetch });
  for (let request = 0; request < 2; request++) {
    const answer = await globalThis.fetch(server.url);
    expect(answer.status).toBe(500);
    const body = await answer.text();
    expect(JSON.parse(body).code).toBe("internal_error");
    expect(body).not.toContain("canary");
  }
  expect(lines.filter((line) => line.includes('"request_failed"'))).toHaveLength(2);
  expect(lines.join("")).not.toContain("canary");
});

test("a refused handshake is logged with why, and how long it took", async () => {
  await using server = startServer();
  const { status } = await sendRaw(server.port, handshake(`/ws/chat?ticket=${"A".repeat(43)}`));
  expect(status).toBe(401);
  const line = server.logLines.find((one) => one.includes('"socket_refused"')) ?? "{}";
  expect(JSON.parse(line)).toMatchObject({ code: "ticket_refused", durationMs: 0 });
});

test.each(["", "live", "/live?a=b", "/live#a"])("throws for a path like %j", async (path) => {
  await using gate = createGate({ users: { secret: TOKEN_SECRET } });
  expect(() => serve(gate, { message() {} }, { path })).toThrow(TypeError);
});

test.each([
  ["than it may", 1_000, { withinMs: 1_000 }],
  ["than 10 s by default", 10_000, undefined],
])(
  "a stop cuts off requests that take longer %s",
  async (_, limitMs, options) => {
    const clock = fakeClock();
    const asked = Promise.withResolvers<void>();
    const gate = createGate({ users: { secret: TOKEN_SECRET }, clock });
    const fetch = () => {
      asked.resolve();
      return new Promise<Response>(() => {});
    };
    const server = serve(gate, { message() {} }, { fetch });
    const response = globalThis.fetch(server.url).then(
      () => "answered",
      () => "cut off",
    );
    await asked.promise;
    let isStopped = false;
    const stopped = server.stop(options).then(() => {
      isStopped = true;
    });
    await settle();
    clock.advance(limitMs - 1);
    await settle();
    expect(isStopped).toBe(false);
    clock.advance(1);
    await stopped;
    expect(await response).toBe("cut off");
    await gate.close();
    // After ten seconds Bun itself would give up on the request.
  },
  8_000,
);

test("a body of more than 1 MB never gets to its own fetch", async () => {
  await using gate = createGate({ users: { secret: TOKEN_SECRET } });
  const fetch = async (request: Request) => Response.json((await request.arrayBuffer()).byteLength);
  await using server = serve(gate, { message() {} }, { fetch });
  const post = async (length: number) => {
    const response = await globalThis.fetch(server.url, {
      method: "POST",
      body: "x".repeat(length),
    });
    return [response.status, await response.text()];
  };
  expect(await post(1024 * 1024)).toEqual([200, String(1024 * 1024)]);
  expect(await post(1024 * 1024 + 1)).toEqual([413, ""]);
});

test("starts its handlers and its checks only once it listens", async () => {
  await using other = startServer();
  const clock = fakeClock();
  await using gate = createGate({ users: { secret: TOKEN_SECRET }, clock });
  let starts = 0;
  const handlers = { start: () => void starts++, message() {} };
  expect(() => serve(gate, handlers, { port: other.port })).toThrow();
  expect([starts, clock.timers]).toEqual([0, 0]);
  await using _server = serve(gate, handlers);
  expect([starts, clock.timers]).toEqual([1, 1]);
});

test("watches its files until it has stopped, or failed to start", async () => {
  const end = mock();
  using watching = spyOn(systemClock, "every").mockReturnValue(end);
  const server = startServer();
  expect(watching).toHaveBeenCalledTimes(1);
  await server.server.stop();
  expect(end).toHaveBeenCalledTimes(1);
  const start = () => {
    throw new Error("no");
  };
  expect(() => serve(server.gate, { start, message() {} })).toThrow("no");
  expect(watching).toHaveBeenCalledTimes(2);
  expect(end).toHaveBeenCalledTimes(2);
  await server[Symbol.asyncDispose]();
});

test("frees its port when the handlers' start throws", async () => {
  const { port } = await (async () => {
    await using server = startServer();
    return server;
  })();
  const fail = () => {
    throw new Error("canary");
  };
  expect(() => startServer({ port, handlers: { start: fail, message() {} } })).toThrow("canary");
  await using server = startServer({ port });
  expect(server.port).toBe(port);
});

describe("a stop", () => {
  /** A store in which every put waits to be let go. */
  function gatedStore() {
    const inner = memoryTicketStore({ clock: fakeClock() });
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let closes = 0;
    return {
      store: {
        ...inner,
        put: async (...args: Parameters<typeof inner.put>) => {
          reached.resolve();
          await gate.promise;
          return inner.put(...args);
        },
        async close() {
          closes++;
        },
      },
      reached: reached.promise,
      open: gate.resolve,
      get closes() {
        return closes;
      },
    };
  }

  test("lets a request in progress finish, and isn't ready meanwhile", async () => {
    const gated = gatedStore();
    await using server = startServer({ store: gated.store });
    const minting = server.mint(await server.token());
    await gated.reached;
    const stopped = server.server.stop();
    expect(server.server.isStopping).toBe(true);
    const ready = await fetch(`${server.origin}/readyz`).then(
      ({ status }) => status,
      () => "refused",
    );
    expect([503, "refused"]).toContain(ready);
    // Longer than a stop waits for responses to leave.
    await settle(1_500);
    gated.open();
    expect((await minting).status).toBe(200);
    await stopped;
  });

  test("takes no longer than it may, whatever is still in progress", async () => {
    const gated = gatedStore();
    const server = startServer({ store: gated.store });
    const minting = server.mint(await server.token()).catch(() => undefined);
    await gated.reached;
    let isStopped = false;
    const stopped = server.server.stop({ withinMs: 500 }).then(() => {
      isStopped = true;
    });
    await settle();
    server.clock.advance(499);
    await settle();
    expect(isStopped).toBe(false);
    server.clock.advance(1);
    // The rest takes no time.
    await stopped;
    gated.open();
    await minting;
    await server.gate.close();
  });

  test("leaves the store open, which the gate closes once", async () => {
    const gated = gatedStore();
    const server = startServer({ store: gated.store });
    const [first, second] = [server.server.stop(), server.server.stop({ withinMs: 1 })];
    expect(second).toBe(first);
    await first;
    expect(gated.closes).toBe(0);
    await server.gate.close();
    expect(gated.closes).toBe(1);
  });

  test("frees the port, and leaves no socket and no timer", async () => {
    const server = startServer();
    const socket = await server.openVisitor();
    await server.server.stop();
    expect((await socket.closed).code).toBe(1012);
    await expect(fetch(`${server.origin}/healthz`)).rejects.toThrow();
    expect(server.server.socketCount).toBe(0);
    await server.gate.close();
    expect([server.clock.timers, server.clock.delays]).toEqual([0, 0]);
    await using _next = startServer({ port: server.port });
  });

  test("spreads its goodbyes to 200 sockets, loses no acknowledged message, and waits for no silent peer", async () => {
    const directory = await mkdtemp(join(tmpdir(), "ws-ticket-stop-"));
    const path = join(directory, "chat.sqlite");
    const clock = fakeClock();
    const server = startServer({
      clock,
      history: sqliteChatHistory({ path, clock }),
      charactersPerMinute: 0,
      limits: { maxPerIdentity: 0, messagesPerSecond: 0 },
    });
    const url = `${server.origin.replace("http", "ws")}/ws/chat`;
    const open = async (user: string) => {
      const socket = openSocket(`${url}?ticket=${await server.ticket(user)}`);
      await socket.opened;
      return socket;
    };
    const listening = await Promise.all(Array.from({ length: 170 }, () => open("alice")));
    const silent = await Promise.all(
      Array.from({ length: 10 }, async () =>
        openRawSocket(server.origin, `/ws/chat?ticket=${await server.ticket("alice")}`),
      ),
    );
    for (const socket of silent) socket.stopReading();
    const writers = await Promise.all(Array.from({ length: 20 }, () => server.openVisitor()));
    for (const socket of writers) await getAnswer(server, socket, "bob");
    const kept: string[] = [];
    const writing = writers.map((socket) =>
      writeOn(socket, { type: "ANON_TO_USER", to: "bob" }, kept),
    );
    while (kept.length < 100) await settle(1);

    const startedAtMs = clock.nowMs();
    await underClock(clock, server.server.stop({ spreadMs: 3_000 }));
    expect(clock.nowMs() - startedAtMs).toBeLessThan(8_000);
    const ends = await Promise.all([...listening, ...writers].map(({ closed }) => closed));
    expect(new Set(ends.map(({ code }) => code))).toEqual(new Set([1012]));
    const times = server.logLines
      .map((line) => JSON.parse(line))
      .filter(({ event }) => event === "socket_ended")
      .map(({ time }) => Date.parse(time) - startedAtMs);
    expect(times).toHaveLength(200);
    // Evenly, give or take the steps in which time passes here.
    for (const [at, afterMs] of times.entries()) {
      expect(Math.abs(afterMs - 15 * at)).toBeLessThanOrEqual(120);
    }
    await Promise.all(writing);
    const stored = keptIn(path);
    expect(kept.filter((ref) => !stored.has(ref))).toEqual([]);
    await server.gate.close();
    for (const socket of silent) socket.reset();
    await rm(directory, { recursive: true, force: true });
  }, 20_000);
});

describe("an address that repeats what is refused", () => {
  const from = (address: string) => ({ headers: { "X-Forwarded-For": address } });

  /** Requests of one address that are refused, with how many responses there are so far. */
  function repeat(origin: string, times: number) {
    const state = { count: 0, all: Promise.resolve<unknown>(undefined) };
    const send = async () => {
      const { status } = await fetch(`${origin}/nowhere`, from("203.0.113.7"));
      expect(status).toBe(404);
      state.count++;
    };
    state.all = Promise.all(Array.from({ length: times }, send));
    return state;
  }

  test("gets 200 refusals at once and then 100 a second, and nobody else waits", async () => {
    await using server = startServer({ trustProxy: 1 });
    await repeat(server.origin, 200).all;
    const more = repeat(server.origin, 3);
    // As long as others take for the same, and the same address for what isn't refused.
    for (let n = 0; n < 5; n++) {
      expect((await fetch(`${server.origin}/nowhere`, from("203.0.113.8"))).status).toBe(404);
      expect((await fetch(`${server.origin}/healthz`, from("203.0.113.7"))).status).toBe(200);
    }
    expect(more.count).toBe(0);
    while (server.clock.delays < 3) await settle(1);
    server.clock.advance(10);
    while (more.count < 1) await settle(1);
    await settle();
    expect(more.count).toBe(1);
    await underClock(server.clock, more.all, { limitMs: 20, stepMs: 10 });
  });

  test("of what is no refusal gets 700 at once, and waits for none to a POST", async () => {
    await using server = startServer({ trustProxy: 1, ticketsPerMinute: 0 });
    const send = async (count: number, method = "GET") => {
      const path = method === "GET" ? "/healthz" : "/api/auth/ws-ticket";
      const headers = {
        ...from("203.0.113.7").headers,
        Authorization: `Bearer ${await server.token("alice")}`,
      };
      const statuses = await Promise.all(
        Array.from({ length: count }, async () => {
          return (await fetch(`${server.origin}${path}`, { method, headers })).status;
        }),
      );
      expect(new Set(statuses)).toEqual(new Set([200]));
    };
    for (let n = 0; n < 7; n++) await send(100);
    await send(10, "POST");
    const last = send(1);
    while (server.clock.delays === 0) await settle(1);
    server.clock.advance(1);
    await last;
  });

  test("doesn't keep a server from stopping", async () => {
    const server = startServer({ trustProxy: 1 });
    await repeat(server.origin, 200).all;
    const { all } = repeat(server.origin, 1);
    while (server.clock.delays === 0) await settle(1);
    await server.server.stop();
    await all;
    await server[Symbol.asyncDispose]();
  });
});

describe("two servers with one gate", () => {
  const closed = ({ socket }: { socket: WebSocket }) => socket.readyState === WebSocket.CLOSED;

  test("each find their own sockets of an identity, and end no others", async () => {
    const finders: ((identity: { kind: "user"; id: string }) => readonly unknown[])[] = [];
    const handlers = {
      start: (_: unknown, socketsOf: (typeof finders)[number]) => void finders.push(socketsOf),
      message() {},
    };
    await using server = startServer({ handlers });
    const second = serve(server.gate, handlers, {});
    await using mine = await server.openUser("alice");
    await using also = await server.openUser("alice");
    const ticket = await server.ticket("alice");
    await using theirs = openSocket(
      `${second.url.href}ws/chat?ticket=${ticket}`.replace("http", "ws"),
    );
    await theirs.opened;
    const counts = () => finders.map((find) => find({ kind: "user", id: "alice" }).length);
    expect(counts()).toEqual([2, 1]);
    await underClock(server.clock, second.stop());
    await theirs.closed;
    expect([counts(), second.socketCount, server.server.socketCount]).toEqual([[2, 0], 0, 2]);
    expect([mine, also].map(closed)).toEqual([false, false]);
    // Ended ones aren't found any more.
    const revoking = server.gate.revoke({ user: "alice" });
    expect(counts()).toEqual([0, 0]);
    await revoking;
  });
});
