import { chmod, cp, mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Mutant } from "./mutants.ts";

/** Before the command of each test run, such as `nice -n 10`. */
const PREFIX = (process.env.MUTATE_PREFIX ?? "").split(" ").filter((word) => word !== "");
/** Shortest time that a test file gets, in milliseconds, and how many times as long as without a mutant. */
const LIMIT_MS = 15_000;
const PATIENCE = 8;

/** What a test file does when nothing is wrong. */
export interface Profile {
  readonly test: string;
  readonly passes: boolean;
  readonly durationMs: number;
  /** By source file, the text of its lines, and whether the test runs them: changes elsewhere in the file leave that true. */
  readonly lines: Readonly<Record<string, Readonly<Record<string, boolean>>>>;
}

/** The test file that noticed a mutant. */
export interface Killer {
  readonly test: string;
  readonly outcome: "failed" | "timed out";
}

/** A copy of the tree where tests run and files change. */
export interface Copy extends AsyncDisposable {
  /** Measures a test file. */
  profile(test: string): Promise<Profile>;
  /** Runs test files on a mutant until one fails, or doesn't come to an end. */
  kill(mutant: Mutant, text: string, tests: readonly Profile[]): Promise<Killer | undefined>;
}

export async function makeCopy(root: string): Promise<Copy> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-mutate-"));
  // Some tests start a process as somebody else.
  await chmod(directory, 0o755);
  const [tree, temporary] = [join(directory, "tree"), join(directory, "tmp")];
  await Promise.all([mkdir(tree), mkdir(temporary)]);
  for (const name of ["src", "test", "package.json", "tsconfig.json", "bunfig.toml", "README.md"]) {
    await cp(join(root, name), join(tree, name), { recursive: true });
  }
  await symlink(join(root, "node_modules"), join(tree, "node_modules"));

  /** Runs a test file. Its own children end with it, and so do its files. */
  async function run(
    test: string,
    limitMs: number,
    options: string[] = [],
  ): Promise<"passed" | Killer["outcome"]> {
    const child = Bun.spawn(
      [
        ...PREFIX,
        process.execPath,
        "test",
        "--bail",
        "--timeout",
        "60000",
        ...options,
        `./${test}`,
      ],
      {
        cwd: tree,
        env: { ...process.env, TMPDIR: temporary },
        stdin: "ignore",
        stdout: "ignore",
        stderr: "pipe",
        detached: true,
      },
    );
    let hasTimedOut = false;
    const end = () => {
      hasTimedOut = true;
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {}
    };
    let timer: Timer | undefined;
    const reading = (async () => {
      // What stands in front of the command may have waited until the first sign of life.
      for await (const _ of child.stderr) timer ??= setTimeout(end, limitMs);
    })();
    const code = await child.exited;
    clearTimeout(timer);
    const outcome = code === 0 ? "passed" : hasTimedOut ? "timed out" : "failed";
    end();
    await reading;
    clearTimeout(timer);
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    return outcome;
  }

  /** Of a coverage report in LCOV's format, what is said about source files. */
  async function parse(report: string): Promise<Profile["lines"]> {
    const files: Record<string, Record<string, boolean>> = {};
    for (const record of report.split("end_of_record")) {
      const file = /^SF:(src\/.*)$/m.exec(record)?.[1];
      if (!file) continue;
      const texts = (await Bun.file(join(tree, file)).text()).split("\n");
      const lines: Record<string, boolean> = {};
      for (const [, line, count] of record.matchAll(/^DA:(\d+),(\d+)/gm)) {
        const text = texts[Number(line) - 1] ?? "";
        lines[text] = lines[text] || count !== "0";
      }
      files[file] = lines;
    }
    return files;
  }

  return {
    async profile(test) {
      const startMs = performance.now();
      const output = join(directory, "coverage");
      await rm(output, { recursive: true, force: true });
      const coverage = ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${output}`];
      const isGood = (await run(test, 300_000, coverage)) === "passed";
      const durationMs = Math.round(performance.now() - startMs);
      const report = Bun.file(join(output, "lcov.info"));
      const lines = (await report.exists()) ? await parse(await report.text()) : {};
      return { test, passes: isGood, durationMs, lines };
    },
    async kill(mutant, text, tests) {
      const path = join(tree, mutant.file);
      await Bun.write(
        path,
        text.slice(0, mutant.start) + mutant.replacement + text.slice(mutant.end),
      );
      try {
        for (const { test, durationMs } of tests) {
          const outcome = await run(test, Math.max(LIMIT_MS, durationMs * PATIENCE));
          if (outcome !== "passed") return { test, outcome };
        }
        return undefined;
      } finally {
        await Bun.write(path, text);
      }
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

/** The room of a source file. */
export function roomOf(file: string): string {
  const [, room, rest] = file.split("/");
  if (rest === undefined) return room === "testing.ts" ? "testing" : "main";
  return room as string;
}

/**
 * Test files that may notice a mutant, the likeliest and quickest first: those that run its line. Code that runs in
 * processes of its own leaves no trace, so those of the room that start processes may run it, too; and where none
 * seems to, all of the room may, and all that start processes.
 */
export function testsFor(
  mutant: Mutant,
  text: string,
  {
    profiles,
    budgetMs,
    startsProcess,
  }: {
    profiles: readonly Profile[];
    budgetMs: number;
    startsProcess: (test: string) => boolean;
  },
): readonly Profile[] {
  const texts = text.split("\n");
  const room = `test/${roomOf(mutant.file)}/`;
  const name = basename(mutant.file).replace(/\.tsx?$/, "");
  const rank = ({ test }: Profile) => {
    if (!test.startsWith(room)) return 2;
    return basename(test).startsWith(name) ? 0 : 1;
  };
  const good = profiles.filter(({ passes }) => passes);
  const running = good.filter((one) => {
    return runs(one, mutant, texts) || (rank(one) < 2 && startsProcess(one.test));
  });
  const chosen =
    running.length > 0 ? running : good.filter((one) => rank(one) < 2 || startsProcess(one.test));
  let leftMs = budgetMs;
  return chosen
    .toSorted((a, b) => rank(a) - rank(b) || a.durationMs - b.durationMs)
    .filter((one) => {
      leftMs -= one.durationMs;
      return rank(one) < 2 || leftMs >= 0;
    });
}

/** Whether a test file runs a mutant's line, or the nearest line before it that counts. */
function runs(profile: Profile, { file, line }: Mutant, texts: readonly string[]): boolean {
  const lines = profile.lines[file];
  if (!lines) return false;
  for (let at = line - 1; at >= 0; at--) {
    const isRun = lines[texts[at] as string];
    if (isRun !== undefined) return isRun;
  }
  return false;
}
