import { describe } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { type People, peopleOf, SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";

const ROOT = join(import.meta.dir, "../..");
const CLOCK = join(import.meta.dir, "clock.mjs");
const HOUR_MS = 3_600_000;
const decoder = new TextDecoder();

/** `describe` for tests that need `node`. Without it they are skipped, and say so; with `CI=true` they run, and fail. */
export const describeOnNode: typeof describe = (() => {
  if (Bun.which("node") || process.env.CI === "true") return describe;
  console.warn("Skipped: these tests need node, which is not on this machine's PATH");
  return describe.skip as typeof describe;
})();

/** A recipe as a process of its own, in the way a reader would run it. */
export interface Program extends People, AsyncDisposable {
  /** Where it listens. */
  readonly origin: string;
  /** What it has written so far, to both outputs. */
  readonly output: string;
  /** Opens a socket at `/live`; rejects when it is refused. */
  openLive(ticket: string): Promise<TestSocket>;
  /** A fresh ticket for this token. */
  ticketFor(token: string): Promise<string>;
  /** Ends a token's session at the gate's own route; the status. */
  signOut(token: string): Promise<number>;
  /** Moves its wall clock forward by an hour, and that of its people. */
  skipHour(): void;
}

export interface ProgramOptions {
  readonly environment?: Record<string, string>;
  /** `node`: bundled for Node, except for packages that are `external`, and run by the `node` on the PATH. */
  readonly runtime?: "bun" | "node";
  readonly external?: readonly string[];
}

/**
 * Starts `test/recipes/<name>.ts` on a free port with the secrets of the tests, and waits until it prints its
 * URL. Files that it writes go with it.
 */
export async function startProgram(
  name: string,
  { environment = {}, runtime = "bun", external = [] }: ProgramOptions = {},
): Promise<Program> {
  const file = join(import.meta.dir, `${name}.ts`);
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-recipe-"));
  const isNode = runtime === "node";
  const child = Bun.spawn(
    isNode
      ? ["node", "--import", CLOCK, "--input-type=module", "-"]
      : [process.execPath, "--preload", CLOCK, file],
    {
      // Node looks for packages from here.
      cwd: isNode ? ROOT : directory,
      env: {
        PATH: process.env.PATH,
        PORT: "0",
        JWT_SECRET: decoder.decode(TOKEN_SECRET),
        SESSION_SECRET: decoder.decode(SESSION_SECRET),
        ...environment,
      },
      stdin: isNode ? new Blob([await bundleForNode(file, { external })]) : "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  let output = "";
  const listening = Promise.withResolvers<string>();
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
      output += decoder.decode(chunk);
      const url = /http:\/\/(?:localhost|127\.0\.0\.1):\d+/.exec(output)?.[0];
      if (url) listening.resolve(url.replace("localhost", "127.0.0.1"));
    }
  };
  const ended = Promise.all([read(child.stdout), read(child.stderr), child.exited]);
  void ended.then(() => listening.reject(new Error(`${name} ended before it listened: ${output}`)));
  const origin = await listening.promise;
  let aheadMs = 0;
  const people = peopleOf(origin, { nowMs: () => Date.now() + aheadMs });
  return {
    ...people,
    origin,
    get output() {
      return output;
    },
    async ticketFor(token) {
      return ((await (await people.mint(token)).json()) as { ticket: string }).ticket;
    },
    async openLive(ticket) {
      const socket = openSocket(`${origin.replace("http", "ws")}/live?ticket=${ticket}`);
      await socket.opened;
      return socket;
    },
    async signOut(token) {
      const headers = { Authorization: `Bearer ${token}` };
      return (await people.ask("/api/auth/sign-out", { method: "POST", headers })).status;
    },
    skipHour() {
      aheadMs += HOUR_MS;
      child.kill("SIGUSR2");
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A module and this package as one for Node; `files` are texts that stand in for files. */
export async function bundleForNode(
  file: string,
  { external = [], files }: { external?: readonly string[]; files?: Record<string, string> } = {},
): Promise<string> {
  const built = await Bun.build({
    entrypoints: [file],
    target: "node",
    external: [...external],
    ...(files && { files }),
  });
  return (await built.outputs[0]?.text()) ?? "";
}

/** Runs a module on Node until it ends; its output. */
export async function runOnNode(
  module: string,
  environment: Record<string, string>,
): Promise<string> {
  const child = Bun.spawn(["node", "--input-type=module", "-"], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, ...environment },
    stdin: new Blob([module]),
    stdout: "pipe",
  });
  return new Response(child.stdout).text();
}
