import { expect, test } from "bun:test";
import { signToken } from "../../src/gate/token.ts";
import { startProcess } from "../support/process.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startRedis } from "../support/redis.ts";
import { repeats } from "../support/repeat.ts";
import { describeWith } from "../support/require.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/server.ts";
import { startUpstashBridge } from "../support/upstash.ts";

/** Handshakes with the same ticket at once, half of them to each server. */
const AT_ONCE = 16;
const TICKETS = repeats(20, 400);

/** Two processes with this store between them. */
async function startPair(store: Record<string, string>) {
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const environment = {
    JWT_SECRET: decode(TOKEN_SECRET),
    SESSION_SECRET: decode(SESSION_SECRET),
    TICKETS_PER_MINUTE: "0",
    MAX_SOCKETS_PER_IDENTITY: "0",
    ...store,
  };
  const processes = [startProcess(environment), startProcess(environment)];
  const urls = await Promise.all(processes.map(({ listening }) => listening));
  const token = await signToken({
    secret: TOKEN_SECRET,
    user: "alice",
    expiresAtMs: Date.now() + 3_600_000,
  });
  return {
    ports: urls.map(({ port }) => Number(port)),
    async ticket(round: number): Promise<string> {
      const answer = await fetch(new URL("/api/auth/ws-ticket", urls[round % urls.length]), {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
      });
      return ((await answer.json()) as { ticket: string }).ticket;
    },
    /** How often a process has let somebody in. */
    opened: () =>
      processes.map(({ events }) => events.filter(({ event }) => event === "socket_opened").length),
    async [Symbol.asyncDispose]() {
      await Promise.all(processes.map((process) => process[Symbol.asyncDispose]()));
    },
  };
}

/** Lets `rounds` tickets be used `AT_ONCE` times each over both servers. */
async function expectOneEach(store: Record<string, string>, rounds: number): Promise<void> {
  await using pair = await startPair(store);
  const wins = [0, 0];
  for (let round = 0; round < rounds; round++) {
    const ticket = await pair.ticket(round);
    const request = handshake(`/ws/chat?ticket=${ticket}`);
    const answers = await Promise.all(
      Array.from({ length: AT_ONCE }, (_, index) =>
        sendRaw(pair.ports[(round + index) % 2] as number, request),
      ),
    );
    const statuses = answers.map(({ status }) => status);
    expect(statuses.toSorted()).toEqual([101, ...Array<number>(AT_ONCE - 1).fill(401)]);
    const winner = (round + statuses.indexOf(101)) % 2;
    wins[winner] = (wins[winner] as number) + 1;
    // Late to the race is no better than slow in it.
    const port = pair.ports[1 - winner] as number;
    expect((await sendRaw(port, request)).status).toBe(401);
  }
  // Log lines come a little later.
  while (pair.opened().reduce((sum, count) => sum + count) < rounds) await Bun.sleep(5);
  expect(pair.opened()).toEqual(wins);
  // Otherwise this was no race between two processes.
  expect(Math.min(...wins)).toBeGreaterThan(0);
}

describeWith("redis-server")("a ticket used 16 times at once over two processes", () => {
  test(`opens exactly one socket, ${TICKETS} tickets in a row, on one Redis`, async () => {
    await using redis = await startRedis();
    await expectOneEach({ REDIS_URL: redis.url }, TICKETS);
    expect(await redis.ticketKeys()).toEqual([]);
  }, 60_000);

  test(`opens exactly one socket, ${TICKETS} tickets in a row, over Upstash's REST API`, async () => {
    await using redis = await startRedis();
    await using bridge = await startUpstashBridge(redis.url);
    await expectOneEach(
      { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token },
      TICKETS,
    );
    // By text only where Redis doesn't know the script yet, and for the feed's first entry, by one process or both.
    const scripts = bridge.requests.filter((name) => name === "EVALSHA");
    const texts = bridge.requests.filter((name) => name === "EVAL");
    expect(scripts).toHaveLength(TICKETS);
    expect([2, 3]).toContain(texts.length);
    expect(bridge.requests.filter((name) => name === "GETDEL")).toHaveLength(
      TICKETS * (AT_ONCE + 1),
    );
  }, 60_000);

  test("is spent in every process once it was used in one, a restarted one too", async () => {
    await using redis = await startRedis();
    const request = await (async () => {
      await using pair = await startPair({ REDIS_URL: redis.url });
      const ticket = await pair.ticket(0);
      const spent = handshake(`/ws/chat?ticket=${ticket}`);
      expect((await sendRaw(pair.ports[1] as number, spent)).status).toBe(101);
      return { spent, kept: handshake(`/ws/chat?ticket=${await pair.ticket(1)}`) };
    })();
    await using pair = await startPair({ REDIS_URL: redis.url });
    expect((await sendRaw(pair.ports[0] as number, request.spent)).status).toBe(401);
    expect((await sendRaw(pair.ports[0] as number, request.kept)).status).toBe(101);
  });
});
