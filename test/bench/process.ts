import type { ChatJob, ChatOutcome } from "./chat-load.ts";
import type { Job, Outcome } from "./load.ts";
import { freePort } from "../support/redis.ts";

const MAIN = `${import.meta.dir}/../../src/main.ts`;
const CONTROL = `${import.meta.dir}/control.ts`;
const RELAY = `${import.meta.dir}/relay.ts`;
const LOAD = `${import.meta.dir}/load.ts`;
const CHAT_LOAD = `${import.meta.dir}/chat-load.ts`;
const COLLECT = `${import.meta.dir}/collect.ts`;

/** No limits (the load is one address and no flood is meant), no log lines; all else as shipped. */
const ENVIRONMENT = {
  JWT_SECRET: "a benchmark's secret of 32 bytes or more",
  SESSION_SECRET: "another one for the visitors' cookies",
  TICKETS_PER_MINUTE: "0",
  MAX_SOCKETS_PER_IDENTITY: "0",
  CHAT_DATABASE: ":memory:",
  MESSAGES_PER_SECOND: "0",
  CHARACTERS_PER_MINUTE: "0",
  LOG_LEVEL: "error",
};

/** A process that serves, on a port of its own. */
export interface Server extends AsyncDisposable {
  readonly port: number;
  /** From the spawn to the first 200, in milliseconds. */
  readonly startMs: number;
  /** Resident bytes, once what nobody needs is collected. */
  residentBytes(): Promise<number>;
}

/** The server as its users run it. */
export function startMain(environment: Record<string, string> = {}): Promise<Server> {
  return start([MAIN], environment);
}

export function startControl(kind: "bare" | "jose" | "hello"): Promise<Server> {
  return start([CONTROL, kind], {});
}

export function startRelay(): Promise<Server> {
  return start([RELAY], {});
}

async function start(command: string[], environment: Record<string, string>): Promise<Server> {
  const port = freePort();
  const startedAtMs = performance.now();
  const child = Bun.spawn([process.execPath, "--preload", COLLECT, ...command], {
    env: { ...process.env, ...ENVIRONMENT, ...environment, HOST: "127.0.0.1", PORT: String(port) },
    stdout: "inherit",
    stderr: "inherit",
  });
  for (;;) {
    if (child.exitCode !== null) throw new Error(`Server didn't start: ${command.join(" ")}`);
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
    if (answer?.ok) break;
    await Bun.sleep(1);
  }
  const startMs = performance.now() - startedAtMs;
  return {
    port,
    startMs,
    async residentBytes() {
      child.kill("SIGUSR2");
      await Bun.sleep(1_000);
      const status = await Bun.file(`/proc/${child.pid}/status`).text();
      return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** A process that the load comes from: it does a job, and says what came of it. */
export interface Load<Job, Outcome> extends Disposable {
  run(job: Job): Promise<Outcome>;
}

/** Opens tickets and sockets, and says how many per second. */
export function startLoad(): Load<Job, number> {
  const load = startLoadProcess<Job, Outcome>(LOAD);
  return {
    ...load,
    run: async (job) => job.count / (await load.run(job)).seconds,
  };
}

/** Writes messages. */
export function startChatLoad(): Load<ChatJob, ChatOutcome> {
  return startLoadProcess(CHAT_LOAD);
}

function startLoadProcess<Job, Outcome>(script: string): Load<Job, Outcome> {
  let finished: (outcome: Outcome) => void = () => {};
  let failed: (error: Error) => void = () => {};
  const child = Bun.spawn([process.execPath, script], {
    env: { ...process.env, ...ENVIRONMENT },
    stdout: "inherit",
    stderr: "inherit",
    ipc: (outcome: Outcome) => finished(outcome),
    onExit: () => failed(new Error("Load process ended")),
  });
  return {
    run(job) {
      const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
      finished = resolve;
      failed = reject;
      child.send(job);
      return promise;
    },
    [Symbol.dispose]: () => child.kill("SIGKILL"),
  };
}
