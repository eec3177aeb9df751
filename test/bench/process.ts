import { openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ChatJob, ChatOutcome } from "./chat-load.ts";
import type { Job, Outcome } from "./load.ts";
import { freePort } from "../support/redis.ts";

const MAIN = `${import.meta.dir}/../../src/main.ts`;
const CONTROLS = `${import.meta.dir}/controls`;
const LOAD = `${import.meta.dir}/load.ts`;
const CHAT_LOAD = `${import.meta.dir}/chat-load.ts`;
const COLLECT = `${import.meta.dir}/collect.ts`;

export const BENCH_SECRET = "a benchmark's secret of 32 bytes or more";

/** What two hundred people who write without a pause would run into; all else as shipped. */
const ENVIRONMENT = {
  JWT_SECRET: BENCH_SECRET,
  SESSION_SECRET: "another one for the visitors' cookies",
  CHAT_DATABASE: ":memory:",
  MESSAGES_PER_SECOND: "1000000",
  CHARACTERS_PER_MINUTE: "1000000000",
};

/** Where a load goes: plain data, for another process. */
export interface Target {
  readonly port: number;
  /** Where sockets are opened, up to the ticket. */
  readonly socketPath: string;
  /** What the server expects after the handshake, and sends in return, where a socket isn't open before that. */
  readonly greeting?: { readonly send: Uint8Array; readonly answer: string } | undefined;
}

/** A process that serves, on a port of its own. */
export interface Server extends AsyncDisposable {
  readonly target: Target;
  /** From the spawn to the first 200, in milliseconds. */
  readonly startMs: number;
  /** Resident bytes, once what nobody needs is collected. */
  residentBytes(): Promise<number>;
}

/** Where the lines of a log go. */
export type Output = "file" | "pipe";

/** The server as its users run it, its log included. */
export function startMain(
  environment: Record<string, string> = {},
  output: Output = "file",
): Promise<Server> {
  return start([MAIN], { environment, output });
}

export type ControlName = "bare" | "hello" | "careless" | "relay";

/** What it is measured against. */
export function startControl(name: ControlName): Promise<Server> {
  return start([`${CONTROLS}/${name}.ts`], {});
}

/** Stacks that others use, on the runtime that they use them on. */
export function startPeer(name: "express" | "socketio", runtime: "bun" | "node"): Promise<Server> {
  const command = [`${CONTROLS}/${name}.mjs`];
  if (name === "express") return start(command, { runtime });
  return start(command, {
    runtime,
    socketPath: "/socket.io/?EIO=4&transport=websocket&ticket=",
    // "40" in a masked text frame: connects to the main namespace.
    greeting: { send: Uint8Array.of(0x81, 0x82, 0, 0, 0, 0, 0x34, 0x30), answer: '40{"sid"' },
  });
}

async function start(
  command: string[],
  options: {
    environment?: Record<string, string>;
    output?: Output;
    runtime?: "bun" | "node";
    socketPath?: string;
    greeting?: Target["greeting"];
  },
): Promise<Server> {
  const { environment, output, runtime = "bun", socketPath = "/ws/chat?ticket=" } = options;
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-bench-"));
  const port = freePort();
  const program = runtime === "node" ? ["node"] : [process.execPath, "--preload", COLLECT];
  const startedAtMs = performance.now();
  const child = Bun.spawn([...program, ...command], {
    env: { ...process.env, ...ENVIRONMENT, ...environment, HOST: "127.0.0.1", PORT: String(port) },
    stdout: output === "pipe" ? "pipe" : openSync(join(directory, "log"), "a"),
    stderr: "inherit",
  });
  if (child.stdout instanceof ReadableStream) void drain(child.stdout);
  for (;;) {
    if (child.exitCode !== null) throw new Error(`Server didn't start: ${command.join(" ")}`);
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
    if (answer?.ok) break;
    await Bun.sleep(1);
  }
  const startMs = performance.now() - startedAtMs;
  return {
    target: { port, socketPath, greeting: options.greeting },
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
      await rm(directory, { recursive: true });
    },
  };
}

/** Reads and drops what comes, as a collector of logs would. */
async function drain(stream: ReadableStream<Uint8Array>): Promise<void> {
  const reader = stream.getReader();
  while (!(await reader.read()).done);
}

/** A process that the load comes from: it does a job, and says what came of it. */
export interface Load<Job, Outcome> extends Disposable {
  run(job: Job): Promise<Outcome>;
}

/** Opens tickets and sockets. */
export function startLoad(): Load<Job, Outcome> {
  return startLoadProcess(LOAD);
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
    serialization: "advanced",
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
