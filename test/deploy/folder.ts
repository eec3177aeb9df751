import { cp } from "node:fs/promises";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "../..");

/** Copies files and folders of this repository, by name. */
export async function copyTo(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) await cp(join(ROOT, name), join(folder, name), { recursive: true });
}

/** Runs lines as `sh` does for somebody who pastes them; their output. Throws where one fails. */
export function runLines(lines: string, cwd: string): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["sh", "-eu", "-c", lines], {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
  });
  if (exitCode !== 0) throw new Error(`${lines}\nfailed: ${stdout}${stderr}`);
  return stdout.toString();
}
