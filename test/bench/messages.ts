import { fdatasyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { startRedis } from "../support/redis.ts";
import type { ChatJob, ChatOutcome } from "./chat-load.ts";
import { type Figure, inTurn, quantile } from "./figures.ts";
import { type Load, type Server, startChatLoad, startControl, startMain } from "./process.ts";
import { temporaryFolder } from "../support/folder.ts";

/** What a quarter of a second's writes of SQLite take, about: blocks of 4 KB in one write. */
const FSYNC_BLOCKS = 4;
const FSYNCS = 1_000;

/** Two hundred people who write as fast as they are answered. */
function write(
  load: Load<ChatJob, ChatOutcome>,
  server: Server,
  job: Partial<ChatJob> = {},
): Promise<ChatOutcome> {
  return load.run({
    ports: { visitors: server.target.port, users: server.target.port },
    bare: false,
    ...{ sockets: 200, messages: 40_000, window: 32 },
    ...job,
  });
}

/** Messages that are stored and delivered, against a relay that stores nothing. */
export async function messages(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  await using redis = await startRedis();
  await using relay = await startControl("relay");
  await using sqlite = await startMain({ CHAT_DATABASE: join(directory.path, "chat.sqlite") });
  await using shared = await startMain({ REDIS_URL: redis.url });
  using load = startChatLoad();
  const rounds = await inTurn(5, {
    relay: async () => (await write(load, relay, { bare: true })).perSecond,
    sqlite: async () => (await write(load, sqlite)).perSecond,
    redis: async () => (await write(load, shared)).perSecond,
  });
  const against = { control: "relay", unit: "/s" } as const;
  return [
    rounds.figure("messages kept in SQLite, against a relay", {
      ...against,
      measured: "sqlite",
      target: { least: 0.6 },
    }),
    rounds.figure("messages kept in Redis, against a relay", {
      ...against,
      measured: "redis",
      target: { least: 0.45 },
    }),
  ];
}

/** From sender to receiver, at a quarter of each one's rate. */
export async function latency(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  await using redis = await startRedis();
  await using relay = await startControl("relay");
  await using sqlite = await startMain({ CHAT_DATABASE: join(directory.path, "chat.sqlite") });
  await using one = await startMain({ REDIS_URL: redis.url });
  await using other = await startMain({ REDIS_URL: redis.url });
  using load = startChatLoad();

  async function quarter(server: Server): Promise<number> {
    const rates = [];
    for (let round = 0; round < 3; round++) rates.push((await write(load, server)).perSecond);
    return quantile(rates, 0.5) / 4;
  }

  async function compare(
    figure: string,
    { server, users = server, rate }: { server: Server; users?: Server; rate: number },
  ): Promise<Figure> {
    const ports = { visitors: server.target.port, users: users.target.port };
    const paced = { messages: Math.round(rate * 3), rate };
    const rounds = await inTurn(3, {
      server: async () => (await write(load, server, { ...paced, ports })).p99Ms,
      relay: async () => (await write(load, relay, { ...paced, bare: true })).p99Ms,
    });
    return rounds.figure(`${figure}, p99, against a relay`, {
      measured: "server",
      control: "relay",
      unit: "ms",
    });
  }

  await write(load, relay, { bare: true });
  const inSqlite = { server: sqlite, rate: await quarter(sqlite) };
  const inRedis = { server: one, rate: await quarter(one) };
  const figure = await compare("SQLite at a quarter of its rate", inSqlite);
  const disk = quantile(fsyncs(directory.path), 0.99);
  return [
    figure,
    {
      figure: `the same, against the disk's fsync of ${FSYNC_BLOCKS * 4} KB, p99`,
      measured: figure.measured,
      control: disk,
      unit: "ms",
      result: figure.measured / disk,
    },
    await compare("Redis at a quarter of its rate", inRedis),
    await compare("the same across two servers", { ...inRedis, users: other }),
  ];
}

/** How long the disk takes, without any database. */
function fsyncs(directory: string): number[] {
  const file = openSync(join(directory, "fsync"), "w");
  const block = Buffer.alloc(FSYNC_BLOCKS * 4_096, "x");
  return Array.from({ length: FSYNCS }, () => {
    const startedAtMs = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    return performance.now() - startedAtMs;
  });
}

/** A million messages: what the process holds after the first hundred thousand, and at the end. */
export async function growth(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  await using server = await startMain({ CHAT_DATABASE: join(directory.path, "chat.sqlite") });
  using load = startChatLoad();
  const resident = async () => (await server.residentBytes()) / 1024 / 1024;
  await write(load, server, { messages: 100_000 });
  const before = await resident();
  for (let round = 0; round < 9; round++) await write(load, server, { messages: 100_000 });
  const after = await resident();
  return [
    {
      figure: "memory after a million messages, against 100,000",
      measured: after,
      control: before,
      unit: "MB",
      result: after / before,
      target: { most: 1.1 },
    },
  ];
}
