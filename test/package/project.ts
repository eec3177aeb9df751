import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

/** Exact versions of the tools that strangers use; a newer one is tried by writing it here. */
export const VERSIONS = {
  "@rollup/plugin-node-resolve": "16.0.3",
  "@sveltejs/vite-plugin-svelte": "7.3.1",
  "@types/bun": "1.4.5",
  "@vitejs/plugin-vue": "6.0.11",
  deno: "2.9.6",
  miniflare: "4.20260730.0",
  next: "16.4.6",
  react: "19.3.1",
  "react-dom": "19.3.1",
  rollup: "4.68.8",
  svelte: "5.57.3",
  typescript: "7.0.2",
  vite: "8.3.8",
  vue: "3.5.45",
  webpack: "5.112.2",
  "webpack-cli": "7.3.1",
} as const;

/** Node as the npm packages that bring its programs, each under a name of its own. */
const NODE = `node-${process.platform}-${process.arch}`;
export const NODES = {
  "node-oldest": `npm:${NODE}@20.20.2`,
  "node-newest": `npm:${NODE}@26.10.0`,
} as const;

/** A stranger's project: a fresh folder outside this repository. */
export interface Project extends AsyncDisposable {
  readonly directory: string;
  /** A file's path. */
  path(...names: string[]): string;
  write(files: Readonly<Record<string, string>>): Promise<void>;
  /** Runs a command here until it ends; its output. Throws with the output when it fails. */
  run(command: readonly string[], environment?: Readonly<Record<string, string>>): Promise<string>;
  /** Starts a command that prints the URL at which it listens. */
  serve(
    command: readonly string[],
    environment?: Readonly<Record<string, string>>,
  ): Promise<{ readonly origin: string } & AsyncDisposable>;
}

let packed: Promise<Uint8Array> | undefined;

/** This package as it would be published, packed once. */
async function pack(): Promise<Uint8Array> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-packed-"));
  await run(["bun", "pm", "pack", "--destination", directory], ROOT);
  const [name = ""] = await Array.fromAsync(new Bun.Glob("*.tgz").scan(directory));
  const bytes = await Bun.file(join(directory, name)).bytes();
  await rm(directory, { recursive: true });
  return bytes;
}

/** Makes a project with this package and others installed, by `npm` or `bun`. */
export async function createProject(options: {
  files?: Readonly<Record<string, string>>;
  /** Beside this package, with the versions above. */
  packages?: readonly (keyof typeof VERSIONS)[];
  /** Others, with their versions. */
  others?: Readonly<Record<string, string>>;
  installer?: "bun" | "npm";
}): Promise<Project> {
  const { files = {}, packages = [], others = {}, installer = "bun" } = options;
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-stranger-"));
  const project = projectIn(directory);
  const dependencies = {
    "ws-ticket": "file:./ws-ticket.tgz",
    ...Object.fromEntries(packages.map((name) => [name, VERSIONS[name]])),
    ...others,
  };
  const about = { name: "stranger", private: true, type: "module" };
  await Bun.write(project.path("ws-ticket.tgz"), await (packed ??= pack()));
  await project.write({ "package.json": JSON.stringify({ ...about, dependencies }), ...files });
  await project.run(
    installer === "npm"
      ? ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
      : ["bun", "install", "--silent"],
  );
  return project;
}

function projectIn(directory: string): Project {
  return {
    directory,
    path: (...names) => join(directory, ...names),
    async write(files) {
      for (const [name, text] of Object.entries(files)) {
        await mkdir(dirname(join(directory, name)), { recursive: true });
        await Bun.write(join(directory, name), text);
      }
    },
    run: (command, environment) => run(command, directory, environment),
    serve: (command, environment) => serve(command, directory, environment),
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function spawn(
  command: readonly string[],
  cwd: string,
  environment: Readonly<Record<string, string>> = {},
) {
  // Bun's tests set it, and tools build something else then.
  const { NODE_ENV: _, ...surroundings } = process.env;
  return Bun.spawn([...command], {
    cwd,
    env: {
      ...surroundings,
      ...{ CI: "true", NO_COLOR: "1", NEXT_TELEMETRY_DISABLED: "1", DENO_NO_UPDATE_CHECK: "1" },
      ...environment,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    // A group of its own: some tools are a script that starts the program.
    detached: true,
  });
}

async function run(
  command: readonly string[],
  cwd: string,
  environment?: Readonly<Record<string, string>>,
): Promise<string> {
  const child = spawn(command, cwd, environment);
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (code !== 0) throw new Error(`${command.join(" ")} failed:\n${withoutHosts(out + err)}`);
  return out;
}

async function serve(
  command: readonly string[],
  cwd: string,
  environment?: Readonly<Record<string, string>>,
) {
  const child = spawn(command, cwd, environment);
  let output = "";
  const listening = Promise.withResolvers<string>();
  const read = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
      output += decoder.decode(chunk, { stream: true });
      const port = /http:\/\/(?:localhost|127\.0\.0\.1):(\d+)/.exec(output)?.[1];
      if (port) listening.resolve(`http://127.0.0.1:${port}`);
    }
  };
  const ended = Promise.all([read(child.stdout), read(child.stderr), child.exited]);
  void ended.then(() =>
    listening.reject(new Error(`${command.join(" ")} ended:\n${withoutHosts(output)}`)),
  );
  const origin = await listening.promise;
  return {
    origin,
    async [Symbol.asyncDispose]() {
      process.kill(-child.pid, "SIGKILL");
      await ended;
    },
  };
}

/** What a tool said, without the hosts that it spoke to. */
function withoutHosts(output: string): string {
  return output.replaceAll(/https?:\/\/(?!localhost|127\.0\.0\.1)[^\s/"')\]]+/g, "https://…");
}
