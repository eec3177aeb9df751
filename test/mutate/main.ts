/**
 * `bun run mutate [file or room…]`: changes the source, one small thing at a time, and prints what no test notices.
 * Runs in a copy of the tree. `--sample N`: so many mutants of each room, drawn with `--seed S`; `--workers N`: at
 * once (default 1); `--wide`: with all tests that run the line, and not only those of its room or with an import of
 * the file; `--budget SECONDS`: for the tests of one mutant, those of its room first and all of them (default 60). Mutants
 * that don't compile don't count.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Mutant } from "./mutants.ts";
import { type Copy, type Killer, makeCopy, type Profile, roomOf, testsFor } from "./suite.ts";
import { openTypes } from "./types.ts";

const ROOT = join(import.meta.dir, "../..");
const CACHE = join(ROOT, ".cache/mutate");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sample: { type: "string", default: "0" },
    seed: { type: "string", default: "1" },
    workers: { type: "string", default: "1" },
    wide: { type: "boolean", default: false },
    budget: { type: "string", default: "60" },
  },
});
const sample = Number(values.sample);
const workers = Number(values.workers);

interface Outcome {
  readonly mutant: Mutant;
  readonly killer: Killer | undefined;
}

await mkdir(CACHE, { recursive: true });
const sources = await read(["src/**/*.{ts,tsx}"]);
const tests = await read(["test/**/*.test.ts"]);
const files = [...sources.keys()].filter(isWanted);
if (files.length === 0) throw new Error(`Nothing to mutate: ${positionals.join(", ")}`);

await using types = await openTypes(ROOT, sources);
const copies = await Promise.all(Array.from({ length: workers }, () => makeCopy(ROOT)));
const outcomes: Outcome[] = [];
try {
  const profiles = await profileAll();
  const mutants = await choose();
  console.log(`${mutants.length} mutants of ${files.length} files`);
  await share(mutants, (copy, mutant) => tryMutant(copy, mutant, profiles));
} finally {
  await Promise.all(copies.map((copy) => copy[Symbol.asyncDispose]()));
}
console.table(
  Object.fromEntries(
    [...Map.groupBy(outcomes, ({ mutant }) => roomOf(mutant.file))].map(([room, all]) => {
      const killed = all.filter(({ killer }) => killer !== undefined).length;
      const timedOut = all.filter(({ killer }) => killer?.outcome === "timed out").length;
      const share = `${((100 * killed) / all.length).toFixed(0)} %`;
      return [
        room,
        { mutants: all.length, killed, timedOut, survived: all.length - killed, share },
      ];
    }),
  ),
);

function isWanted(file: string): boolean {
  if (file.endsWith(".d.ts")) return false;
  if (positionals.length === 0) return !file.startsWith("src/page/");
  return positionals.some((name) => file === name || roomOf(file) === name);
}

async function read(patterns: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const pattern of patterns) {
    for await (const file of new Bun.Glob(pattern).scan(ROOT)) {
      found.set(file, await Bun.file(join(ROOT, file)).text());
    }
  }
  return new Map([...found].sort());
}

/** Which lines each test file runs, and how long it takes; measured once, until the test file changes. */
async function profileAll(): Promise<Profile[]> {
  const rooms = new Set(files.map(roomOf));
  const wanted = [...tests].flatMap(([test, text]) => {
    const isOfRoom = rooms.has(test.split("/")[1] as string);
    const isNear = isOfRoom || files.some((file) => text.includes(`/${file}"`));
    // In a browser, so slow that only the pages themselves are worth it.
    const isWanted = isNear || (values.wide && !test.startsWith("test/page/"));
    return isWanted ? [test] : [];
  });
  const profiles: Profile[] = [];
  await share(wanted, async (copy, test) => {
    const key = hash([test, tests.get(test) ?? ""]);
    const cached = Bun.file(join(CACHE, `profile-${key}.json`));
    const profile: Profile = (await cached.exists())
      ? await cached.json()
      : await copy.profile(test);
    if (!profile.passes) console.log(`Left out, since it fails without a mutant: ${test}`);
    else await cached.write(JSON.stringify(profile));
    profiles.push(profile);
  });
  return profiles;
}

/** A sample of each room's mutants that compile. */
async function choose(): Promise<Mutant[]> {
  const all: Mutant[] = [];
  for (const file of files) all.push(...(await types.mutantsOf(file)));
  const chosen: Mutant[] = [];
  for (const ofRoom of Map.groupBy(all, ({ file }) => roomOf(file)).values()) {
    const drawn: Mutant[] = [];
    for (const mutant of sample > 0 ? shuffle(ofRoom) : ofRoom) {
      if (sample > 0 && drawn.length >= sample) break;
      if (await types.accepts(mutant, mutate(mutant))) drawn.push(mutant);
    }
    chosen.push(...drawn);
  }
  return chosen.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.start - b.start));
}

async function tryMutant(copy: Copy, mutant: Mutant, profiles: readonly Profile[]): Promise<void> {
  const chosen = testsFor(mutant, sources.get(mutant.file) as string, {
    profiles,
    budgetMs: Number(values.budget) * 1_000,
    startsProcess: (test) => /\/support\/(?:command|process)\.ts"/.test(tests.get(test) ?? ""),
  });
  const cached = Bun.file(join(CACHE, `killed-${hash([mutate(mutant)])}.json`));
  const keyOf = (test: string) => hash([tests.get(test) ?? ""]);
  let killer: Killer | undefined;
  if (await cached.exists()) {
    const { test, key }: { test: string; key: string } = await cached.json();
    if (key === keyOf(test)) killer = { test, outcome: "failed" };
  }
  if (!killer) {
    killer = await copy.kill(mutant, sources.get(mutant.file) as string, chosen);
    if (killer?.outcome === "failed") {
      await cached.write(JSON.stringify({ test: killer.test, key: keyOf(killer.test) }));
    }
  }
  outcomes.push({ mutant, killer });
  if (killer) return;
  const show = (text: string) =>
    JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}…` : text);
  const change = `${show(mutant.original)} -> ${show(mutant.replacement)}`;
  console.log(`${mutant.file}:${mutant.line}  ${change}  (${chosen.length} test files)`);
}

function mutate({ file, start, end, replacement }: Mutant): string {
  const text = sources.get(file) as string;
  return text.slice(0, start) + replacement + text.slice(end);
}

/** Gives each copy the next item as soon as it is done with one. */
async function share<Item>(
  items: readonly Item[],
  work: (copy: Copy, item: Item) => Promise<void>,
): Promise<void> {
  const left = items.values();
  await Promise.all(
    copies.map(async (copy) => {
      for (const item of left) await work(copy, item);
    }),
  );
}

/** In an order that depends on the seed, and for each mutant on nothing but itself. */
function shuffle(mutants: readonly Mutant[]): Mutant[] {
  return mutants
    .map((mutant) => ({ mutant, order: hash([values.seed, mutant.file, mutate(mutant)]) }))
    .sort((a, b) => (a.order < b.order ? -1 : 1))
    .map(({ mutant }) => mutant);
}

function hash(parts: readonly string[]): string {
  const hasher = new Bun.CryptoHasher("sha256");
  for (const part of parts) hasher.update(`${part.length}:${part}`);
  return hasher.digest("hex").slice(0, 24);
}
