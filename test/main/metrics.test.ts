import { expectHeaders } from "../support/gate.ts";
import { describe, expect, test } from "bun:test";
import { createMetrics } from "../../src/metrics.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { maxOpenFiles } from "../../src/sockets/files.ts";
import { fakeClock } from "../support/clock.ts";
import { issuerKey, startKeyServer } from "../support/keys.ts";
import { visitorIdOf } from "../support/people.ts";
import { startInstance, startProcess } from "../support/process.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { openSocket } from "../support/socket.ts";
import manifest from "../../package.json" with { type: "json" };

/** The series of a text in Prometheus' format, by name and labels. */
function read(text: string): Record<string, number> {
  return Object.fromEntries(
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => {
        const at = line.lastIndexOf(" ");
        return [line.slice(0, at), Number(line.slice(at + 1))];
      }),
  );
}

async function startMeasured(environment: Record<string, string> = {}) {
  const server = await startInstance({
    METRICS_PORT: "0",
    ADMIN_TOKEN: "an-operators-token-of-the-tests-0123456789",
    MAX_SOCKETS_PER_IDENTITY: "3",
    ...environment,
  });
  const { url } = await server.event("metrics_listening");
  const scrape = async () => {
    const answer = await fetch(new URL("/metrics", String(url)));
    return { answer, text: await answer.text() };
  };
  return Object.assign(Object.create(server) as typeof server, {
    url: String(url),
    scrape,
    /** The series, once they are as wanted. */
    async seen(wanted: (series: Record<string, number>) => boolean) {
      for (;;) {
        const series = read((await scrape()).text);
        if (wanted(series)) return series;
        await Bun.sleep(5);
      }
    },
  });
}

describe("a server's metrics", () => {
  test("are served only where a port is set for them", async () => {
    await using server = await startInstance();
    expect((await server.ask("/metrics")).status).toBe(404);
    expect(server.events.map(({ event }) => event)).not.toContain("metrics_listening");
  });

  test("need an optional package, and the log names it when it isn't installed", async () => {
    const preload = `${import.meta.dir}/without-prom-client.ts`;
    const environment = { METRICS_PORT: "0", BUN_OPTIONS: `--preload ${preload}` };
    await using server = startProcess(environment);
    server.listening.catch(() => {});
    expect(await server.exited).toBe(78);
    expect(await server.event("config_fault")).toMatchObject({
      variable: "METRICS_PORT",
      note: "needs the package prom-client, which isn't installed",
    });
  });

  test("have a port of their own, with nothing else on it", async () => {
    await using server = await startMeasured();
    const { answer, text } = await server.scrape();
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4");
    expectHeaders(answer.headers);
    expect(text).toContain("# TYPE ws_ticket_issued_total counter");
    expect((await server.ask("/metrics")).status).toBe(404);
    for (const path of [
      "/",
      "/healthz",
      "/api/auth/ws-ticket",
      "/ws/chat",
      "/metrics/",
      "/METRICS",
    ]) {
      const { status } = await fetch(new URL(path, server.url));
      expect([path, status]).toEqual([path, 404]);
    }
    const { status } = await fetch(new URL("/metrics", server.url), { method: "POST" });
    expect(status).toBe(404);
  });

  test("count what happens, without names, tickets or addresses", async () => {
    await using server = await startMeasured();
    const fresh = read((await server.scrape()).text);
    expect(fresh).toMatchObject({
      ws_ticket_issued_total: 0,
      ws_ticket_redeemed_total: 0,
      ws_ticket_messages_total: 0,
      'ws_ticket_sockets{kind="user"}': 0,
      'ws_ticket_sockets{kind="visitor"}': 0,
    });

    // Probes of readiness are no redemptions.
    for (let probe = 0; probe < 3; probe++) await server.ask("/readyz");
    const cookie = await server.visitorCookie();
    const visitor = await server.openVisitor(cookie);
    const user = await server.openUser("canary-user");
    const leaving = await server.openUser("canary-user");
    const token = await server.token("canary-user", { claims: { sid: "canary-session" } });
    const { ticket } = (await (await server.mint(token)).json()) as { ticket: string };
    const signedOut = openSocket(`${server.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`);
    await signedOut.opened;
    const tooMany = await server.openUser("canary-user");
    expect((await tooMany.closed).code).toBe(4502);
    leaving.socket.close(3456, "canary-reason");
    await leaving.closed;
    await server.ask("/api/auth/sign-out", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    await signedOut.closed;

    visitor.send({
      type: "ANON_TO_USER",
      to: "canary-user",
      content: "canary-content",
      ref: "canary-ref",
    });
    await user.next(({ content }) => content === "canary-content");
    await visitor.next(({ type }) => type === "ACK");
    await server.mint("bad");
    await server.mint(token);
    const port = Number(new URL(server.origin).port);
    await sendRaw(port, handshake(`/ws/chat?ticket=${ticket}`));
    await sendRaw(port, handshake("/ws/chat"));
    await sendRaw(port, handshake("/ws/chat?token=canary"));

    const series = await server.seen((all) => all['ws_ticket_closes_total{code="4500"}'] === 1);
    expect(series).toMatchObject({
      ws_ticket_issued_total: 4,
      ws_ticket_redeemed_total: 4,
      ws_ticket_messages_total: 1,
      'ws_ticket_sockets{kind="user"}': 1,
      'ws_ticket_sockets{kind="visitor"}': 1,
      'ws_ticket_refused_total{code="token_invalid",fault="not_a_jwt"}': 1,
      'ws_ticket_refused_total{code="token_invalid",fault="revoked"}': 1,
      'ws_ticket_refused_total{code="ticket_refused"}': 1,
      'ws_ticket_refused_total{code="session_refused"}': 1,
      'ws_ticket_refused_total{code="credential_in_url"}': 1,
      'ws_ticket_closes_total{code="4502"}': 1,
      'ws_ticket_closes_total{code="other"}': 1,
      'ws_ticket_store_seconds_count{operation="put",outcome="ok"}': 5,
      'ws_ticket_store_seconds_count{operation="take",outcome="ok"}': 5,
      'ws_ticket_store_seconds_count{operation="revoke",outcome="ok"}': 1,
    });

    const { text } = await server.scrape();
    const said = [ticket, token, visitorIdOf(cookie), cookie, "canary", "127.0.0.1", "3456"];
    for (const secret of said) expect(text).not.toContain(secret);
    for (const { socket } of [visitor, user]) socket.close();
    await server.seen(
      (all) =>
        all['ws_ticket_sockets{kind="user"}'] === 0 &&
        all['ws_ticket_sockets{kind="visitor"}'] === 0,
    );
  }, 15_000);

  test("count what the chat couldn't store, by what is wrong", async () => {
    const metrics = createMetrics(fakeClock());
    const log = metrics.observe(() => {});
    for (const code of ["disk_full", "disk_full", "out_of_memory"]) {
      log("error", "chat_failed", { user: "canary", code });
    }
    const text = await metrics.read();
    expect(read(text)).toMatchObject({
      'ws_ticket_chat_failures_total{code="disk_full"}': 2,
      'ws_ticket_chat_failures_total{code="out_of_memory"}': 1,
    });
    expect(text).not.toContain("canary");
  });

  test("say what runs, how many sockets may be open, and what the process takes", async () => {
    await using server = await startMeasured();
    const series = read((await server.scrape()).text);
    const { version } = manifest;
    expect(series[`ws_ticket_info{version="${version}",bun="${Bun.version}"}`]).toBe(1);
    const { maxSockets } = await server.event("listening");
    expect(series["ws_ticket_max_sockets"]).toBe(maxSockets as number);
    expect(series["process_resident_memory_bytes"]).toBeGreaterThan(10_000_000);
    expect(series["process_cpu_seconds_total"]).toBeGreaterThan(0);
    expect(series["process_open_fds"]).toBeGreaterThan(3);
    expect(series["process_max_fds"]).toBe(maxOpenFiles());
    const upSeconds = Date.now() / 1000 - (series["process_start_time_seconds"] as number);
    expect(upSeconds).toBeGreaterThan(0);
    expect(upSeconds).toBeLessThan(60);
    expect(Object.keys(series).filter((name) => name.includes("feed_lag"))).toEqual([]);
  });

  test("say when the issuer's keys were read, and count failures", async () => {
    const key = await issuerKey("ES256", "k1");
    await using keyServer = startKeyServer(key);
    const settings = { JWT_SECRET: "", JWT_JWKS_URL: keyServer.url.href };
    await using server = await startMeasured(settings);
    const mint = async () => {
      const token = await key.sign({ sub: "alice", exp: Math.floor(Date.now() / 1000) + 60 });
      return (await server.mint(token)).status;
    };
    keyServer.answer(() => new Response(null, { status: 500 }));
    expect(await mint()).toBe(503);
    const failing = read((await server.scrape()).text);
    expect(failing["ws_ticket_jwks_failures_total"]).toBe(1);
    expect(failing["ws_ticket_jwks_read_timestamp_seconds"]).toBe(0);
    keyServer.publish(key);
    await using other = await startMeasured(settings);
    const token = await key.sign({ sub: "alice", exp: Math.floor(Date.now() / 1000) + 60 });
    expect((await other.mint(token)).status).toBe(200);
    const series = read((await other.scrape()).text);
    const ageSeconds = Date.now() / 1000 - (series["ws_ticket_jwks_read_timestamp_seconds"] ?? 0);
    expect(ageSeconds).toBeLessThan(30);
  });

  test("count sockets by kind, and the processor's time in seconds", async () => {
    const metrics = createMetrics(fakeClock());
    const log = metrics.observe(() => {});
    for (const who of [{ user: "a" }, { user: "b" }, { visitor: "c" }]) {
      log("info", "socket_opened", who);
    }
    const seconds = () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1_000_000;
    };
    const before = seconds();
    const series = read(await metrics.read());
    expect(series).toMatchObject({
      'ws_ticket_sockets{kind="user"}': 2,
      'ws_ticket_sockets{kind="visitor"}': 1,
    });
    expect(series.process_cpu_seconds_total).toBeWithin(before, seconds() + 0.001);
  });

  test("stay a bounded number of series, whatever peers say", async () => {
    const metrics = createMetrics(fakeClock());
    const log = metrics.observe(() => {});
    for (let code = 0; code < 5_000; code++) log("info", "socket_closed", { user: "a", code });
    const closes = Object.keys(read(await metrics.read())).filter((name) =>
      name.includes("closes"),
    );
    expect(closes.toSorted()).toEqual(
      [
        ...["1000", "1001", "1002", "1003", "1005", "1006", "1007", "1009", "1011", "1012"],
        ...["4001", "4002", "4003", "4500", "4501", "4502", "other"],
      ].map((code) => `ws_ticket_closes_total{code="${code}"}`),
    );
  });

  test("time the store, failures apart", async () => {
    const clock = fakeClock();
    const metrics = createMetrics(clock);
    const gate = Promise.withResolvers<undefined>();
    const revocations = { subscribe() {}, ready: async () => {}, isFailing: true };
    const inner = { ...memoryTicketStore({ clock }), take: () => gate.promise, revocations };
    const store = metrics.measure(inner);
    // Without it the sign-outs of other processes would go unnoticed.
    expect(store.revocations).toBe(revocations);
    const taken = store.take("hash").catch((error) => error);
    clock.advance(1_500);
    gate.reject(new Error("canary"));
    expect((await taken).message).toBe("canary");
    const series = read(await metrics.read());
    expect(series).toMatchObject({
      'ws_ticket_store_seconds_sum{operation="take",outcome="failed"}': 1.5,
      'ws_ticket_store_seconds_bucket{le="0.0005",operation="take",outcome="failed"}': 0,
      'ws_ticket_store_seconds_bucket{le="1",operation="take",outcome="failed"}': 0,
      'ws_ticket_store_seconds_bucket{le="2",operation="take",outcome="failed"}': 1,
    });
  });
});

describeWith("redis-server")("the metrics of a server on a Redis", () => {
  test("say how late events of other processes are, and count outages", async () => {
    await using redis = await startRedis();
    await using server = await startMeasured({ REDIS_URL: redis.url });
    await using visitor = await server.openVisitor();
    const lag = "ws_ticket_feed_lag_seconds";
    // One read waits for a second at most.
    const calm = await server.seen((series) => (series[lag] ?? 9) < 1.5);
    expect(calm["ws_ticket_feed_failures_total"]).toBe(0);
    await redis.kill();
    await server.seen((series) => (series[lag] ?? 0) > 2);
    expect(read((await server.scrape()).text)["ws_ticket_feed_failures_total"]).toBe(1);
    await redis.restart();
    const after = await server.seen((series) => (series[lag] ?? 9) < 1.5);
    expect(after["ws_ticket_feed_gaps_total"]).toBe(1);
    visitor.socket.close();
  });
});
