import { startRedis } from "../support/redis.ts";
import { type Figure, inTurn, quantile } from "./figures.ts";
import type { Job, Outcome } from "./load.ts";
import {
  type Load,
  type Server,
  startControl,
  startLoad,
  startMain,
  startPeer,
} from "./process.ts";

/** Mints with a verified token, and admissions: a mint and the socket that its ticket opens. */
export async function admissions(): Promise<Figure[]> {
  await using main = await startMain();
  await using careless = await startControl("careless");
  await using bare = await startControl("bare");
  using load = startLoad();
  const servers = { main, careless, bare };
  const admitted = await compare(load, servers, { kind: "admit", count: 1_500 });
  const minted = await compare(load, servers, { kind: "mint", count: 4_000 });
  const [ours, theirs] = [
    { measured: "main", unit: "/s" } as const,
    { control: "careless" } as const,
  ];
  return [
    admitted.rates.figure("admission, against careless Hono and jose", {
      ...ours,
      ...theirs,
      target: { least: 1 },
    }),
    admitted.p99("p99 of that", "main", "careless"),
    admitted.rates.figure("admission, against a server that checks nothing", {
      ...ours,
      control: "bare",
      target: { least: 0.65 },
    }),
    minted.rates.figure("mint, against careless Hono and jose", {
      ...ours,
      ...theirs,
      target: { least: 1 },
    }),
    minted.p99("p99 of that", "main", "careless"),
    minted.rates.figure("mint, against a server that checks nothing", {
      ...ours,
      control: "bare",
      target: { least: 0.3 },
    }),
  ];
}

/** What the log costs, by where it goes. */
export async function log(): Promise<Figure[]> {
  await using silent = await startMain({ LOG_LEVEL: "error" });
  await using file = await startMain({}, "file");
  await using pipe = await startMain({}, "pipe");
  using load = startLoad();
  const { rates, p99 } = await compare(
    load,
    { silent, file, pipe },
    { kind: "admit", count: 1_500 },
  );
  const unit = "/s";
  return [
    rates.figure("admission with LOG_LEVEL=info to a file, against error", {
      measured: "file",
      control: "silent",
      unit,
    }),
    p99("p99 of that", "file", "silent"),
    rates.figure("admission with LOG_LEVEL=info to a pipe, against error", {
      measured: "pipe",
      control: "silent",
      unit,
    }),
    p99("p99 of that", "pipe", "silent"),
  ];
}

/** The same admission by stacks that others use. */
export async function peers(): Promise<Figure[]> {
  await using main = await startMain();
  await using expressOnBun = await startPeer("express", "bun");
  await using expressOnNode = await startPeer("express", "node");
  await using socketioOnBun = await startPeer("socketio", "bun");
  await using socketioOnNode = await startPeer("socketio", "node");
  using load = startLoad();
  const servers = { main, expressOnBun, expressOnNode, socketioOnBun, socketioOnNode };
  const { rates, p99 } = await compare(load, servers, { kind: "admit", count: 1_000 }, 7);
  const named = {
    expressOnBun: "Express, ws and jsonwebtoken on Bun",
    expressOnNode: "Express, ws and jsonwebtoken on Node",
    socketioOnBun: "socket.io on Bun",
    socketioOnNode: "socket.io on Node",
  } as const;
  return Object.entries(named).flatMap(([control, name]) => {
    const peer = control as keyof typeof named;
    const compared = { measured: "main", control: peer, unit: "/s", target: { least: 1 } } as const;
    return [rates.figure(`admission, against ${name}`, compared), p99("p99 of that", "main", peer)];
  });
}

/** Tickets in Redis. */
export async function redisAdmissions(): Promise<Figure[]> {
  await using redis = await startRedis();
  await using shared = await startMain({ REDIS_URL: redis.url });
  await using own = await startMain();
  using load = startLoad();
  const { rates, p99 } = await compare(load, { shared, own }, { kind: "admit", count: 1_500 });
  const count = 500;
  const commands = await monitor(redis.port, () =>
    load.run({ target: shared.target, kind: "admit", count }),
  );
  const perAdmission = commands / count;
  return [
    rates.figure("admission with Redis, against memory", {
      measured: "shared",
      control: "own",
      unit: "/s",
      target: { least: 0.75 },
    }),
    p99("p99 of that", "shared", "own"),
    {
      figure: "round trips to Redis per admission",
      measured: perAdmission,
      control: 2,
      unit: "",
      result: perAdmission / 2,
      // Feed and memory are looked at once a second.
      target: { most: 1.01 },
    },
  ];
}

/** Runs a job on all of them in turn. */
async function compare<Name extends string>(
  load: Load<Job, Outcome>,
  servers: Readonly<Record<Name, Server>>,
  job: Omit<Job, "target">,
  count = 11,
) {
  const p99s = {} as Record<Name, number[]>;
  const measurements = {} as Record<Name, () => Promise<number>>;
  for (const name of Object.keys(servers) as Name[]) {
    const { target } = servers[name];
    p99s[name] = [];
    measurements[name] = async () => {
      const outcome = await load.run({ ...job, target });
      p99s[name].push(outcome.p99Ms);
      return outcome.perSecond;
    };
  }
  const rates = await inTurn(count, measurements);
  /** The first round doesn't count. */
  const medianOf = (name: Name) => quantile(p99s[name].slice(1), 0.5);
  return {
    rates,
    p99: (figure: string, measured: Name, control: Name): Figure => ({
      figure,
      measured: medianOf(measured),
      control: medianOf(control),
      unit: "ms",
      result: medianOf(measured) / medianOf(control),
    }),
  };
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
