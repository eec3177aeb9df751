import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const CLI = join(import.meta.dir, "../../src/cli.ts");

/** What a command came to. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What it left in its working directory. */
  readonly files: readonly string[];
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
