import { join } from "node:path";
import { type People, peopleOf, SESSION_SECRET, TOKEN_SECRET } from "./people.ts";

const SOURCE = join(import.meta.dir, "../../src");

/** The server as a process of its own, with all of its output. */
export interface TestProcess extends AsyncDisposable {
  readonly pid: number;
  /** Where it listens; rejects when it ends before it does. */
  readonly listening: Promise<URL>;
  /** Exit code; -1 when a signal ended it. */
  readonly exited: Promise<number>;
  /** What it has written so far. */
  readonly stdout: string;
  readonly stderr: string;
  /** The lines of stdout so far, parsed. */
  readonly events: readonly Record<string, unknown>[];
  /** The first line of this event, already there or still to come. */
  event(name: string): Promise<Record<string, unknown>>;
  kill(signal: "SIGTERM" | "SIGINT" | "SIGKILL"): void;
}

interface ProcessOptions {
  readonly within?: readonly string[];
  readonly program?: readonly string[];
  readonly cwd?: string;
}

/**
 * Starts `src/main.ts` with this environment and nothing else, on a free port unless it has a `PORT`.
 * `within`: a command that starts the command in its further arguments, with limits of its own for example.
 * `command`: another file of the source, with its arguments; `program`: another program, with its arguments.
 */
export function startProcess(
  environment: Record<string, string> = {},
  {
    within = [],
    command: [file = "main.ts", ...args] = [],
    program = [process.execPath, join(SOURCE, file), ...args],
    cwd = import.meta.dir,
  }: ProcessOptions & { command?: readonly string[] } = {},
): TestProcess {
  const child = Bun.spawn([...within, ...program], {
    cwd,
    env: { PORT: "0", CHAT_DATABASE: ":memory:", DRAIN_DELAY_SECONDS: "0", ...environment },
    stdout: "pipe",
    stderr: "pipe",
  });
  let stdout = "";
  let stderr = "";
  const waiting = new Set<() => void>();

  async function read(stream: ReadableStream<Uint8Array>, take: (text: string) => void) {
    const decoder = new TextDecoder();
    for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
      take(decoder.decode(chunk, { stream: true }));
      for (const wake of waiting) wake();
    }
  }
  const readStdout = read(child.stdout, (text) => (stdout += text));
  const readStderr = read(child.stderr, (text) => (stderr += text));
  let isKilled = false;
  const exited = child.exited.then(async (code) => {
    await Promise.all([readStdout, readStderr]);
    const { signalCode } = child;
    // A crash of the runtime, most likely, which the tests see as a connection that was lost.
    if (signalCode && !isKilled) console.error(`Process ended by ${signalCode}: ${stderr}`);
    return signalCode ? -1 : code;
  });
  function kill(signal: NodeJS.Signals): void {
    isKilled = true;
    child.kill(signal);
  }

  function events(): Record<string, unknown>[] {
    return stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  }

  function event(name: string): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = events().find((line) => line.event === name);
        if (!found) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
      void exited.then(() =>
        reject(new Error(`Process ended without ${name}: ${stdout}${stderr}`)),
      );
    });
  }

  const listening = event("listening").then(({ url }) => new URL(String(url)));
  listening.catch(() => {});
  return {
    pid: child.pid,
    listening,
    exited,
    get stdout() {
      return stdout;
    },
    get stderr() {
      return stderr;
    },
    get events() {
      return events();
    },
    event,
    kill,
    async [Symbol.asyncDispose]() {
      kill("SIGKILL");
      await exited;
    },
  };
}

/** A server process that is up, and its people. */
export interface TestInstance extends TestProcess, People {
  readonly origin: string;
}

/** The secrets of the tests, and no limits. */
export const SETTINGS: Readonly<Record<string, string>> = {
  JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
  SESSION_SECRET: new TextDecoder().decode(SESSION_SECRET),
  TICKETS_PER_MINUTE: "0",
  MESSAGES_PER_SECOND: "0",
  CHARACTERS_PER_MINUTE: "0",
  MAX_SOCKETS_PER_IDENTITY: "0",
};

/** Starts a server with the secrets of the tests and without limits, and waits until it listens. */
export async function startInstance(
  environment: Record<string, string> = {},
  options?: ProcessOptions,
): Promise<TestInstance> {
  const started = startProcess({ ...SETTINGS, ...environment }, options);
  const { origin } = await started.listening;
  // The getters of `started` stay getters.
  return Object.assign(Object.create(started), peopleOf(origin), { origin });
}
