import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/cli.ts";

const CLI = join(import.meta.dir, "../../src/cli.ts");

interface Output {
  /** `undefined` for a command that goes on. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a command came to. */
export interface CommandResult extends Output {
  /** What it left in its working directory. */
  readonly files: readonly string[];
}

/** Runs `ws-ticket` in this process, with this environment and nothing else: a tenth of the work of another one. */
export async function callCommand(
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<Output> {
  let stdout = "";
  let stderr = "";
  const code = await run(args, {
    environment,
    print: (line) => void (stdout += `${line}\n`),
    report: (text) => void (stderr += text),
    isWatched: false,
  });
  return { code, stdout, stderr };
}

/** Runs `ws-ticket` in an empty directory, with this environment and nothing else, until it ends. */
export async function runCommand(
  args: readonly string[],
  {
    environment = {},
    files = {},
  }: { environment?: Record<string, string>; files?: Record<string, string> } = {},
): Promise<CommandResult> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-cli-"));
  try {
    for (const [name, text] of Object.entries(files)) await Bun.write(join(directory, name), text);
    const child = Bun.spawn([process.execPath, CLI, ...args], {
      cwd: directory,
      env: environment,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [code, stdout, stderr] = await Promise.all([
      child.exited,
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    const left = (await readdir(directory)).filter((name) => !(name in files));
    return { code, stdout, stderr, files: left };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
