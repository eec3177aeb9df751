import { describe, expect, test } from "bun:test";
import { closeSync, constants, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startProcess, type TestProcess } from "../support/process.ts";
import { handshake } from "../support/raw.ts";
import { peopleOf, TOKEN_SECRET } from "../support/people.ts";
import { freePort, startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { openSocket } from "../support/socket.ts";

const ENVIRONMENT = {
  JWT_SECRET: "a secret for tokens, of 32 bytes or more",
  SESSION_SECRET: "a secret for sessions, of 32 bytes or more",
};

/** A process that ends by itself: its exit code and its output, every line of which is JSON. */
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
    // The other faults are tested without a process, with the configuration.
    ["no secret for sessions", { JWT_SECRET: ENVIRONMENT.JWT_SECRET }, "SESSION_SECRET"],
    ["the demo on every address", { HOST: "0.0.0.0" }, "HOST"],
  ])("refuses to start with %s", async (_, environment, variable) => {
    const { code, events } = await run(environment);
    expect(code).toBe(78);
    expect(events.map((event) => event.variable)).toContain(variable);
  });

  test("serves frames for the origins that are named, the inbox's cookie, and the way to sign in", async () => {
    const shop = "https://shop.example";
    await using child = startProcess({
      ...ENVIRONMENT,
      EMBED_ORIGINS: shop,
      LOGIN_URL: "https://app.example/login",
    });
    const url = await child.listening;
    const get = (path: string) => fetch(new URL(path, url));
    const frame = await get(`/embed/alice?host=${encodeURIComponent(shop)}`);
    expect(frame.headers.get("content-security-policy")).toContain(`frame-ancestors ${shop};`);
    expect((await get("/embed.js")).status).toBe(200);
    expect(await (await get("/embed/api/auth/anonymous-session")).json()).toEqual({ known: false });
    expect(await (await get("/inbox/api/session")).json()).toEqual({ user: null });
    expect(await (await get("/inbox")).text()).toContain('data-login="https://app.example/login"');
  });

  test("logs in one line that the port is taken, and exits", async () => {
    await using first = startProcess(ENVIRONMENT);
    const { port } = await first.listening;
    const { code, events } = await run({ ...ENVIRONMENT, PORT: port });
    expect(code).toBe(1);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({ level: "error", event: "listen_failed", variable: "PORT" });
    expect(events[0]?.code).toBe("EADDRINUSE");
  });

  test("logs in one line that the host isn't this machine's, and exits", async () => {
    const { code, events } = await run({ ...ENVIRONMENT, HOST: "192.0.2.1" });
    expect(code).toBe(1);
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      ...{ level: "error", event: "listen_failed", variable: "HOST", code: "EADDRNOTAVAIL" },
    });
  });

  test("logs that METRICS_HOST isn't this machine's, and exits", async () => {
    const environment = { ...ENVIRONMENT, METRICS_PORT: "0", METRICS_HOST: "192.0.2.1" };
    await using child = startProcess(environment);
    expect(await child.exited).toBe(1);
    expect(child.events.at(-1)).toMatchObject({ event: "listen_failed", variable: "METRICS_HOST" });
  });

  test("serves metrics on loopback wherever the server listens, unless METRICS_HOST says otherwise", async () => {
    const environment = { ...ENVIRONMENT, HOST: "0.0.0.0", METRICS_PORT: "0" };
    await using usual = startProcess(environment);
    const { url } = await usual.event("metrics_listening");
    expect(new URL(String(url)).hostname).toBe("127.0.0.1");
    await using open = startProcess({ ...environment, METRICS_HOST: "0.0.0.0" });
    const everywhere = await open.event("metrics_listening");
    expect(new URL(String(everywhere.url)).hostname).not.toBe("127.0.0.1");
  });
});

describe("demo mode", () => {
  test("with nothing configured logs a warning, and serves a user and a visitor", async () => {
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
    user.socket.close();
    await user.closed;
    child.kill("SIGTERM");
    await expectCleanEnd(child);
  });

  test("is off, and signs no tokens, once secrets are set", async () => {
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

describe("a log to a pipe", () => {
  /** More than a pipe takes. */
  const MINTS = 1_000;

  /** A server that logs to a pipe, whose ends are given. */
  async function startOn(stdout: number) {
    const port = freePort();
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "../../src/main.ts")], {
      env: {
        ...{ ...ENVIRONMENT, JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET) },
        ...{ PORT: String(port), CHAT_DATABASE: ":memory:", TICKETS_PER_MINUTE: "0" },
        DRAIN_DELAY_SECONDS: "0",
      },
      stdout,
      stderr: "pipe",
    });
    const people = peopleOf(`http://127.0.0.1:${port}`);
    const isUp = () =>
      fetch(`http://127.0.0.1:${port}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      );
    while (!(await isUp())) await Bun.sleep(5);
    return {
      async expectToWork() {
        const token = await people.token();
        for (let count = 0; count < MINTS; count += 50) {
          const mints = await Promise.all(Array.from({ length: 50 }, () => people.mint(token)));
          for (const { status } of mints) expect(status).toBe(200);
        }
        expect(await isUp()).toBe(true);
        child.kill("SIGTERM");
        expect(await child.exited).toBe(0);
        expect(await new Response(child.stderr).text()).toBe("");
      },
      [Symbol.dispose]: () => child.kill("SIGKILL"),
    };
  }

  async function pipe(): Promise<{ reader: number; writer: number }> {
    const directory = await mkdtemp(join(tmpdir(), "ws-ticket-pipe-"));
    const path = join(directory, "pipe");
    await Bun.spawn(["mkfifo", path]).exited;
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = openSync(path, constants.O_WRONLY);
    await rm(directory, { recursive: true });
    return { reader, writer };
  }

  test("that nobody reads holds nothing up, not even the end", async () => {
    const { reader, writer } = await pipe();
    using server = await startOn(writer);
    await server.expectToWork();
    closeSync(reader);
    closeSync(writer);
  });

  test("whose reader is gone isn't missed", async () => {
    const { reader, writer } = await pipe();
    using server = await startOn(writer);
    closeSync(writer);
    closeSync(reader);
    await server.expectToWork();
  });
});

describe("a signal to end", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "%s closes the socket with 1012, frees the port, and exits with 0",
    async (signal) => {
      await using child = startProcess(ENVIRONMENT);
      const url = await child.listening;
      const socket = await openVisitor(url);
      child.kill(signal);
      expect((await socket.closed).code).toBe(1012);
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

  test("isn't delayed by a peer that never answers the close", async () => {
    await using child = startProcess(ENVIRONMENT);
    const url = await child.listening;
    const visitor = await openVisitor(url);
    visitor.socket.close();
    await visitor.closed;
    const headers = { Origin: url.origin, Cookie: visitor.cookie };
    const { hostname, port } = url;
    const deaf = await Bun.connect({ hostname, port: Number(port), socket: { data() {} } });
    deaf.write(handshake("/ws/chat", headers, { host: url.host }));
    while (child.events.filter(({ event }) => event === "socket_opened").length < 2) {
      await Bun.sleep(5);
    }
    const startedAtMs = performance.now();
    child.kill("SIGTERM");
    await expectCleanEnd(child);
    expect(performance.now() - startedAtMs).toBeLessThan(4_000);
    deaf.end();
  });

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

    test("that isn't there yet starts the server, which serves once it is", async () => {
      await using redis = await startRedis();
      await redis.kill();
      await using child = startProcess({ ...ENVIRONMENT, REDIS_URL: redis.url });
      const url = await child.listening;
      expect((await fetch(new URL("/healthz", url))).status).toBe(200);
      expect((await fetch(new URL("/readyz", url))).status).toBe(503);
      await redis.restart();
      const socket = await openVisitor(url);
      child.kill("SIGTERM");
      expect((await socket.closed).code).toBe(1012);
      await expectCleanEnd(child);
    }, 15_000);
  });
});
