import { describe, expect, test } from "bun:test";
import type { SocketHandlers } from "../../src/sockets/socket.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { signToken } from "../../src/gate/token.ts";
import { startProcess, type TestProcess } from "../support/process.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";

const ENVIRONMENT = {
  JWT_SECRET: "a secret for tokens, of 32 bytes or more",
  SESSION_SECRET: "a secret for sessions, of 32 bytes or more",
};

/** Ends a process by itself: its exit code, and what it said, every line of which is JSON. */
async function run(environment: Record<string, string>) {
  await using child = startProcess(environment);
  const started = child.listening.then(() => "started" as const);
  const code = await Promise.race([child.exited, started.catch(() => child.exited)]);
  expect(child.stderr).toBe("");
  return { code, events: child.events, stdout: child.stdout };
}

/** A visitor's socket. */
async function openVisitor(url: URL) {
  const session = await fetch(new URL("/api/auth/anonymous-session", url), { method: "POST" });
  const cookie = session.headers.get("set-cookie")?.split(";")[0] ?? "";
  const socket = openSocket(`${url.origin.replace("http", "ws")}/ws/chat`, {
    Origin: url.origin,
    Cookie: cookie,
  });
  await socket.opened;
  return { ...socket, cookie };
}

async function expectCleanEnd(child: TestProcess): Promise<void> {
  expect(await child.exited).toBe(0);
  expect(child.stderr).toBe("");
  const names = child.events.map(({ event }) => event);
  expect(names).toContain("draining");
  expect(names.at(-1)).toBe("stopped");
}

describe("configuration", () => {
  test("reports all faults at once, each by its variable and none by its value, and exits with 78", async () => {
    const environment = {
      JWT_SECRET: "canary-short-1",
      SESSION_SECRET: "canary-short-2",
      PORT: "canary-port",
      PUBLIC_URL: "https://canary-user:canary-pass@example.com",
      ALLOWED_ORIGINS: "https://canary.example/*",
      REDIS_URL: "canary://canary-pass@127.0.0.1",
      UPSTASH_REDIS_REST_URL: "ftp://canary.example",
      TICKET_TTL_SECONDS: "canary",
      TRUST_PROXY: "-1",
      TICKETS_PER_MINUTE: "1e3",
      MAX_SOCKETS_PER_IDENTITY: "canary",
      MESSAGES_PER_SECOND: "0x10",
      MAX_MESSAGE_BYTES: "1",
      LOG_LEVEL: "canary",
    };
    const { code, events, stdout } = await run(environment);
    expect(code).toBe(78);
    const named = new Set(events.map(({ variable }) => variable));
    for (const variable of Object.keys(environment)) expect(named).toContain(variable);
    expect(named).toContain("UPSTASH_REDIS_REST_TOKEN");
    expect(stdout).not.toContain("canary");
    expect(new Set(events.map(({ event }) => event))).toEqual(new Set(["config_fault"]));
  });

  test.each<[string, Record<string, string>, string]>([
    ["no secret for sessions", { JWT_SECRET: ENVIRONMENT.JWT_SECRET }, "SESSION_SECRET"],
    ["no keys for tokens", { SESSION_SECRET: ENVIRONMENT.SESSION_SECRET }, "JWT_SECRET"],
    ["the demo in production", { NODE_ENV: "production" }, "NODE_ENV"],
    ["the demo on every address", { HOST: "0.0.0.0" }, "HOST"],
    ["the demo on every IPv6 address", { HOST: "::" }, "HOST"],
    ["the demo on an address of the network", { HOST: "192.0.2.1" }, "HOST"],
  ])("refuses to start with %s", async (_, environment, variable) => {
    const { code, events } = await run(environment);
    expect(code).toBe(78);
    expect(events.map((event) => event.variable)).toContain(variable);
  });

  test("says in one line that the port is taken, and exits", async () => {
    await using first = startProcess(ENVIRONMENT);
    const { port } = await first.listening;
    const { code, events } = await run({ ...ENVIRONMENT, PORT: port });
    expect(code).toBe(1);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({ level: "error", event: "listen_failed", variable: "PORT" });
    expect(events[0]?.code).toBe("EADDRINUSE");
  });

  test("says in one line that the host isn't this machine's, and exits", async () => {
    const { code, events } = await run({ ...ENVIRONMENT, HOST: "192.0.2.1" });
    expect(code).toBe(1);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({ level: "error", event: "listen_failed" });
  });
});

describe("demo mode", () => {
  test("with nothing configured says so, and serves a user and a visitor", async () => {
    await using child = startProcess();
    const url = await child.listening;
    const line = await child.event("demo_mode");
    expect(line).toMatchObject({ level: "warn", url: url.href });
    expect(String(line.note)).toContain("Not for production");
    const visitor = await openVisitor(url);
    const signedIn = await fetch(new URL("/api/demo/token", url), {
      method: "POST",
      body: JSON.stringify({ name: "alice" }),
    });
    const { token } = (await signedIn.json()) as { token: string };
    const minted = await fetch(new URL("/api/auth/ws-ticket", url), {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    const { ticket, expiresIn } = (await minted.json()) as { ticket: string; expiresIn: number };
    expect(expiresIn).toBe(30);
    const user = openSocket(`${url.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`);
    await user.opened;
    visitor.send({ type: "ANON_TO_USER", to: "alice", content: "Hello", ref: "1" });
    expect(await user.next()).toMatchObject({ type: "ANON_TO_USER", content: "Hello" });
    child.kill("SIGTERM");
    await expectCleanEnd(child);
  });

  test("is off, and gives no tokens away, once secrets are set", async () => {
    await using child = startProcess(ENVIRONMENT);
    const url = await child.listening;
    const answer = await fetch(new URL("/api/demo/token", url), {
      method: "POST",
      body: JSON.stringify({ name: "alice" }),
    });
    expect(answer.status).toBe(404);
    expect(child.events.map(({ event }) => event)).not.toContain("demo_mode");
  });

  test("makes other secrets at each start", async () => {
    const cookie = await (async () => {
      await using first = startProcess();
      return (await openVisitor(await first.listening)).cookie;
    })();
    await using second = startProcess();
    const url = await second.listening;
    const socket = openSocket(`${url.origin.replace("http", "ws")}/ws/chat`, {
      Origin: url.origin,
      Cookie: cookie,
    });
    await expect(socket.opened).rejects.toThrow();
  });
});

describe("a signal to end", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "%s tells every socket 1012, refuses what is new, and exits with 0",
    async (signal) => {
      await using child = startProcess({ ...ENVIRONMENT, MAX_SOCKETS_PER_IDENTITY: "0" });
      const url = await child.listening;
      const sockets = await Promise.all(Array.from({ length: 50 }, () => openVisitor(url)));
      child.kill(signal);
      const closes = await Promise.all(sockets.map(({ closed }) => closed));
      expect(new Set(closes.map(({ code }) => code))).toEqual(new Set([1012]));
      await expectCleanEnd(child);
      await expect(fetch(new URL("/healthz", url))).rejects.toThrow();
    },
  );

  test("may come twice, and mixed", async () => {
    await using child = startProcess(ENVIRONMENT);
    const socket = await openVisitor(await child.listening);
    child.kill("SIGTERM");
    child.kill("SIGTERM");
    child.kill("SIGINT");
    expect((await socket.closed).code).toBe(1012);
    await expectCleanEnd(child);
  });

  test("ends an idle server at once", async () => {
    await using child = startProcess(ENVIRONMENT);
    await fetch(new URL("/healthz", await child.listening));
    const startedAtMs = performance.now();
    child.kill("SIGTERM");
    await expectCleanEnd(child);
    expect(performance.now() - startedAtMs).toBeLessThan(2_000);
  });

  test("isn't held up by a peer that never answers the close", async () => {
    await using child = startProcess(ENVIRONMENT);
    const url = await child.listening;
    const { cookie } = await openVisitor(url);
    const headers = { Origin: url.origin, Cookie: cookie };
    const { hostname, port } = url;
    const deaf = await Bun.connect({ hostname, port: Number(port), socket: { data() {} } });
    deaf.write(handshake("/ws/chat", headers, { host: url.host }));
    while (child.events.filter(({ event }) => event === "socket_opened").length < 2) {
      await Bun.sleep(5);
    }
    const startedAtMs = performance.now();
    child.kill("SIGTERM");
    await expectCleanEnd(child);
    expect(performance.now() - startedAtMs).toBeLessThan(8_000);
    deaf.end();
  }, 15_000);

  describeWith("redis-server")("with a Redis", () => {
    test.each<[string, "freeze" | "kill"]>([
      ["that is frozen", "freeze"],
      ["that is gone", "kill"],
    ])(
      "%s ends the server all the same",
      async (_, fault) => {
        await using redis = await startRedis();
        await using child = startProcess({ ...ENVIRONMENT, REDIS_URL: redis.url });
        const url = await child.listening;
        const socket = await openVisitor(url);
        expect((await fetch(new URL("/readyz", url))).status).toBe(200);
        await redis[fault]();
        child.kill("SIGTERM");
        expect((await socket.closed).code).toBe(1012);
        await expectCleanEnd(child);
      },
      15_000,
    );

    test("that freezes makes for 503 within two seconds at every door, until it is back", async () => {
      await using redis = await startRedis();
      await using child = startProcess({ ...ENVIRONMENT, REDIS_URL: redis.url });
      const url = await child.listening;
      const { cookie } = await openVisitor(url);
      const token = await signToken({
        secret: new TextEncoder().encode(ENVIRONMENT.JWT_SECRET),
        user: "alice",
        expiresAtMs: Date.now() + 3_600_000,
      });
      const port = Number(url.port);
      const headers = { Origin: url.origin, Cookie: cookie };
      const mint = () =>
        fetch(new URL("/api/auth/ws-ticket", url), {
          method: "POST",
          headers: { Authorization: `Bearer ${token}` },
        });
      const openAsUser = (ticket: string) =>
        sendRaw(port, handshake(`/ws/chat?ticket=${ticket}`, {}, { host: url.host }));
      const openAsVisitor = () => sendRaw(port, handshake("/ws/chat", headers, { host: url.host }));
      const newTicket = async () => ((await (await mint()).json()) as { ticket: string }).ticket;
      const ticket = await newTicket();
      redis.freeze();
      const startedAtMs = performance.now();
      const answers = await Promise.all([mint(), openAsUser(ticket), openAsVisitor()]);
      expect(answers.map(({ status }) => status)).toEqual([503, 503, 503]);
      expect(performance.now() - startedAtMs).toBeLessThan(2_000);
      redis.thaw();
      expect((await openAsUser(await newTicket())).status).toBe(101);
      expect((await openAsVisitor()).status).toBe(101);
    }, 15_000);

    test("that isn't there yet starts the server, unready until it is", async () => {
      await using redis = await startRedis();
      await redis.kill();
      await using child = startProcess({ ...ENVIRONMENT, REDIS_URL: redis.url });
      const url = await child.listening;
      const ready = async () => (await fetch(new URL("/readyz", url))).status;
      expect((await fetch(new URL("/healthz", url))).status).toBe(200);
      expect(await ready()).toBe(503);
      await redis.restart();
      while ((await ready()) !== 200) await Bun.sleep(20);
      child.kill("SIGTERM");
      await expectCleanEnd(child);
    }, 15_000);
  });
});

describe("stopping a server", () => {
  /** A store in which every put, or every take, waits to be let go. */
  function gatedStore(method: "put" | "take") {
    const inner = memoryTicketStore();
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let closes = 0;
    const wait = async (called: "put" | "take") => {
      if (called !== method) return;
      reached.resolve();
      await gate.promise;
    };
    return {
      store: {
        ...inner,
        put: async (...args: Parameters<typeof inner.put>) => {
          await wait("put");
          return inner.put(...args);
        },
        take: async (hash: string) => {
          await wait("take");
          return inner.take(hash);
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

  test("lets a request that is under way finish, and is not ready meanwhile", async () => {
    const gated = gatedStore("put");
    await using server = startServer({ store: gated.store });
    const minting = server.mint(await server.token());
    await gated.reached;
    const stopped = server.server.stop();
    const ready = await fetch(`${server.origin}/readyz`).then(
      ({ status }) => status,
      () => "refused",
    );
    expect([503, "refused"]).toContain(ready);
    gated.open();
    expect((await minting).status).toBe(200);
    await stopped;
  });

  test("opens no socket whose ticket was on its way", async () => {
    const gated = gatedStore("take");
    await using server = startServer({ store: gated.store });
    const ticket = await server.ticket();
    const upgrading = sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`));
    await gated.reached;
    const stopped = server.server.stop();
    gated.open();
    const { status, body } = await upgrading;
    expect(status).toBe(503);
    expect(JSON.parse(body).code).toBe("shutting_down");
    await stopped;
    expect(server.server.socketCount).toBe(0);
  });

  test("takes no longer than it may, whatever is still under way", async () => {
    const gated = gatedStore("put");
    const server = startServer({ store: gated.store });
    const minting = server.mint(await server.token()).catch(() => undefined);
    await gated.reached;
    const startedAtMs = performance.now();
    await server.server.stop({ withinMs: 100 });
    expect(performance.now() - startedAtMs).toBeLessThan(1_500);
    gated.open();
    await minting;
  });

  test("twice is once: one promise, and the store is closed once", async () => {
    const gated = gatedStore("put");
    const server = startServer({ store: gated.store });
    const [first, second] = [server.server.stop(), server.server.stop({ withinMs: 1 })];
    expect(second).toBe(first);
    await first;
    await server.server.stop();
    expect(gated.closes).toBe(1);
  });

  test("leaves nobody at the port, no socket and no timer", async () => {
    const server = startServer();
    const socket = await server.openVisitor();
    await server.server.stop();
    expect((await socket.closed).code).toBe(1012);
    await expect(fetch(`${server.origin}/healthz`)).rejects.toThrow();
    expect(server.server.socketCount).toBe(0);
    expect(server.clock.timers).toBe(0);
  });
});

describe("a handler that fails", () => {
  const quiet: SocketHandlers = {
    message(socket, _, text) {
      socket.send(JSON.stringify({ echo: text }));
    },
  };
  const fault = new Error("canary-message");

  test.each<[string, SocketHandlers]>([
    [
      "throws when a socket opens",
      {
        ...quiet,
        open() {
          throw fault;
        },
      },
    ],
    [
      "throws at a message",
      {
        message() {
          throw fault;
        },
      },
    ],
    ["rejects at a message", { message: () => Promise.reject(fault) }],
    [
      "rejects some time after a message",
      {
        async message() {
          await new Promise((resolve) => setImmediate(resolve));
          throw fault;
        },
      },
    ],
    ["rejects with nothing", { message: () => Promise.reject(undefined) }],
    [
      "throws what is no error",
      {
        message() {
          throw null;
        },
      },
    ],
  ])("%s: its socket gets 1011, and the next client is served", async (_, broken) => {
    let broke = false;
    /** Broken for the first socket, well for those that follow. */
    const handlers: SocketHandlers = {
      open(socket, identity) {
        if (!broke) broken.open?.(socket, identity);
      },
      message(socket, identity, text) {
        return (broke ? quiet : broken).message(socket, identity, text);
      },
    };
    await using server = startServer({ handlers });
    const first = await server.openUser();
    first.send({ type: "anything" });
    const { code, reason } = await first.closed;
    expect(code).toBe(1011);
    expect(reason).not.toContain("canary");
    broke = true;
    await using next = await server.openUser();
    next.send("still here");
    expect(await next.next()).toEqual({ echo: "still here" });
    expect(server.server.socketCount).toBe(1);
    const lines = server.logLines.map((line) => JSON.parse(line));
    expect(lines.filter(({ event }) => event === "socket_failed")).toHaveLength(1);
    expect(server.logLines.join("")).not.toContain("canary");
  });

  test("throws when a socket closes: the next client is served", async () => {
    await using server = startServer({
      handlers: {
        ...quiet,
        close() {
          throw fault;
        },
      },
    });
    const first = await server.openUser();
    first.socket.close();
    await first.closed;
    await using next = await server.openUser();
    next.send("still here");
    expect(await next.next()).toEqual({ echo: "still here" });
  });

  test("handles no further message of a socket that failed", async () => {
    const seen: string[] = [];
    await using server = startServer({
      handlers: {
        async message(_, __, text) {
          seen.push(text);
          await new Promise((resolve) => setImmediate(resolve));
          throw fault;
        },
      },
    });
    const socket = await server.openUser();
    for (const text of ["1", "2", "3"]) socket.send(text);
    expect((await socket.closed).code).toBe(1011);
    expect(seen).toEqual(["1"]);
  });
});
