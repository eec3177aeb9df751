/**
 * `bun run bench`: what admission costs, each figure as a ratio to a control that is measured in turn with
 * it, in the same run on the same machine. Absolute rates say more about the machine than about the server.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startRedis } from "../support/redis.ts";
import type { Job } from "./load.ts";
import type { ChatJob } from "./chat-load.ts";
import {
  type Load,
  type Server,
  startChatLoad,
  startControl,
  startLoad,
  startMain,
  startRelay,
} from "./process.ts";

/** Idle sockets whose memory is compared. */
const HELD_SOCKETS = 10_000;

interface Figure {
  readonly figure: string;
  readonly measured: number;
  readonly control: number;
  readonly unit: string;
  /** `measured` against `control`: a ratio, or a difference in KB. */
  readonly result: number;
  readonly target: string;
  readonly met: boolean;
}

const figures: Figure[] = [];
await admissions();
await mints();
await redisAdmissions();
await memory();
await starts();
await messages();
await memoryOfMessages();
console.table(
  figures.map(({ figure, measured, control, unit, result, target, met }) => ({
    figure,
    measured: `${show(measured)} ${unit}`,
    control: `${show(control)} ${unit}`,
    result: result.toFixed(2),
    target: `${target}${met ? "" : "  MISSED"}`,
  })),
);

async function admissions(): Promise<void> {
  await using main = await startMain();
  await using bare = await startControl("bare");
  using load = startLoad();
  const job = { kind: "admit", count: 1_500, rounds: 11 } as const;
  const compared = await compare(load, job, main, bare);
  addAtLeast(0.8, "mint + upgrade, against a server that checks nothing", "/s", compared);
}

async function mints(): Promise<void> {
  await using main = await startMain();
  await using bare = await startControl("bare");
  await using jose = await startControl("jose");
  using load = startLoad();
  const job = { kind: "mint", count: 4_000, rounds: 9 } as const;
  const againstBare = await compare(load, job, main, bare);
  addAtLeast(0.4, "mint, against a server that checks nothing", "/s", againstBare);
  const againstJose = await compare(load, job, main, jose);
  addAtLeast(0.9, "mint, against that and jose's jwtVerify", "/s", againstJose);
}

async function redisAdmissions(): Promise<void> {
  await using redis = await startRedis();
  await using shared = await startMain({ REDIS_URL: redis.url });
  await using own = await startMain();
  using load = startLoad();
  const job = { kind: "admit", count: 1_500, rounds: 11 } as const;
  const compared = await compare(load, job, shared, own);
  addAtLeast(0.6, "mint + upgrade with Redis, against memory", "/s", compared);

  const count = 500;
  const commands = await monitor(redis.port, () =>
    load.run({ port: shared.port, kind: "admit", count }),
  );
  const perAdmission = commands / count;
  figures.push({
    figure: "round trips to Redis per admission",
    measured: perAdmission,
    control: 2,
    unit: "",
    result: perAdmission,
    target: "2.00",
    met: perAdmission.toFixed(2) === "2.00",
  });
}

/** Commands that reach Redis meanwhile, without those that a script of them runs inside Redis. */
async function monitor(port: number, run: () => Promise<unknown>): Promise<number> {
  let heard = "";
  const started = Promise.withResolvers<void>();
  const monitor = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        heard += chunk.toString("latin1");
        started.resolve();
      },
    },
  });
  monitor.write("MONITOR\r\n");
  await started.promise;
  await run();
  await Bun.sleep(200);
  monitor.end();
  const seen = heard.match(/^\+[\d.]+ \[\d+ (?!lua\]).*$/gm) ?? [];
  return seen.length;
}

async function memory(): Promise<void> {
  const measured = await bytesPerSocket(await startMain());
  const control = await bytesPerSocket(await startControl("bare"));
  figures.push({
    figure: `memory of an idle socket (${HELD_SOCKETS})`,
    measured: measured / 1024,
    control: control / 1024,
    unit: "KB",
    result: (measured - control) / 1024,
    target: "at most 2.00 KB more",
    met: measured - control <= 2 * 1024,
  });
}

async function bytesPerSocket(server: Server): Promise<number> {
  await using _ = server;
  using load = startLoad();
  const { port } = server;
  await load.run({ port, kind: "admit", count: 1_000 });
  const before = await server.residentBytes();
  await load.run({ port, kind: "hold", count: HELD_SOCKETS });
  return ((await server.residentBytes()) - before) / HELD_SOCKETS;
}

async function starts(): Promise<void> {
  const pairs: [number, number][] = [];
  for (let round = 0; round < 15; round++) {
    pairs.push([await startMs(() => startMain()), await startMs(() => startControl("hello"))]);
  }
  const compared = summary(pairs);
  figures.push({
    figure: "start to the first answer, against a Hono hello",
    ...compared,
    unit: "ms",
    target: "at most 1.50",
    met: compared.result <= 1.5,
  });
}

/** Two hundred people who write as fast as they are answered, and then at a quarter of that. */
async function messages(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-bench-"));
  await using redis = await startRedis();
  await using relay = await startRelay();
  await using sqlite = await startMain({ CHAT_DATABASE: join(directory, "chat.sqlite") });
  await using one = await startMain({ REDIS_URL: redis.url });
  await using other = await startMain({ REDIS_URL: redis.url });
  using load = startChatLoad();
  const top = async (server: Server, job: Partial<ChatJob> = {}) =>
    load.run({
      ports: { visitors: server.port, users: server.port },
      bare: server === relay,
      ...{ sockets: 200, messages: 40_000, window: 32 },
      ...job,
    });

  const pairs: Record<"sqlite" | "redis", [number, number][]> = { sqlite: [], redis: [] };
  for (let round = 0; round <= 7; round++) {
    const control = (await top(relay)).perSecond;
    const both = { sqlite: await top(sqlite), redis: await top(one) };
    if (round === 0) continue;
    pairs.sqlite.push([both.sqlite.perSecond, control]);
    pairs.redis.push([both.redis.perSecond, control]);
  }
  const [inSqlite, inRedis] = [summary(pairs.sqlite), summary(pairs.redis)];
  addAtLeast(0.5, "messages kept in SQLite, against a relay", "/s", inSqlite);
  addAtLeast(0.35, "messages kept in Redis, against a relay", "/s", inRedis);

  const latency = async (figure: string, server: Server, rate: number, users = server) => {
    const ports = { visitors: server.port, users: users.port };
    const paced = { messages: Math.round(rate * 3), rate };
    const measured = await top(server, { ...paced, ports });
    const control = await top(relay, paced);
    figures.push({
      figure: `${figure}, sender to receiver, p99`,
      measured: measured.p99Ms,
      control: control.p99Ms,
      unit: "ms",
      result: measured.p99Ms / control.p99Ms,
      target: "none",
      met: true,
    });
  };
  await latency("SQLite at a quarter of its rate", sqlite, inSqlite.measured / 4);
  await latency("Redis at a quarter of its rate", one, inRedis.measured / 4);
  await latency("the same across two servers", one, inRedis.measured / 4, other);
  await rm(directory, { recursive: true });
}

/** A million messages: what the process holds after the first hundred thousand, and at the end. */
async function memoryOfMessages(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-bench-"));
  await using server = await startMain({ CHAT_DATABASE: join(directory, "chat.sqlite") });
  using load = startChatLoad();
  const ports = { visitors: server.port, users: server.port };
  const job = { ports, bare: false, sockets: 200, messages: 100_000, window: 32 };
  await load.run(job);
  const before = await server.residentBytes();
  for (let round = 0; round < 9; round++) await load.run(job);
  const after = await server.residentBytes();
  figures.push({
    figure: "memory after a million messages, against 100,000",
    measured: after / 1024 / 1024,
    control: before / 1024 / 1024,
    unit: "MB",
    result: after / before,
    target: "at most 1.10",
    met: after <= before * 1.1,
  });
  await rm(directory, { recursive: true });
}

async function startMs(start: () => Promise<Server>): Promise<number> {
  await using server = await start();
  return server.startMs;
}

/** Runs the same job on both servers in turn, after a round that doesn't count. */
async function compare(
  load: Load<Job, number>,
  job: Omit<Job, "port"> & { rounds: number },
  measured: Server,
  control: Server,
): Promise<Pick<Figure, "measured" | "control" | "result">> {
  const { rounds, ...rest } = job;
  const pairs: [number, number][] = [];
  for (let round = 0; round <= rounds; round++) {
    const pair: [number, number] = [
      await load.run({ ...rest, port: measured.port }),
      await load.run({ ...rest, port: control.port }),
    ];
    if (round > 0) pairs.push(pair);
  }
  return summary(pairs);
}

/** Medians of both, and of the ratios pair by pair, which what else the machine does disturbs least. */
function summary(pairs: [number, number][]): Pick<Figure, "measured" | "control" | "result"> {
  return {
    measured: median(pairs.map(([measured]) => measured)),
    control: median(pairs.map(([, control]) => control)),
    result: median(pairs.map(([measured, control]) => measured / control)),
  };
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function addAtLeast(
  least: number,
  figure: string,
  unit: string,
  compared: Pick<Figure, "measured" | "control" | "result">,
): void {
  const target = `at least ${least.toFixed(2)}`;
  figures.push({ figure, ...compared, unit, target, met: compared.result >= least });
}

function show(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(2);
}
