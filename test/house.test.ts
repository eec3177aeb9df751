import { describe, expect, test } from "bun:test";
import { join, normalize } from "node:path";

const SOURCE = join(import.meta.dir, "../src");

/** Rooms and single files, from the ground up: each imports from its own floor or from a lower one. */
const FLOORS = [
  ...["lib/", "wire/", "request/", "redis/", "gate/", "sockets/", "chat/"],
  ...["keys.ts", "config.ts", "open.ts", "testing.ts", "page/", "metrics.ts", "routes.ts"],
  ...["check/", "main.ts", "cli/", "cli.ts"],
];
/** What a package's entry exports may come from any of these floors and below. */
const ENTRIES: Record<string, string> = { "mod.ts": "gate/", "bun.ts": "open.ts" };
/** Rooms that run in browsers, and all that they see. */
const BROWSER: Record<string, readonly string[]> = {
  "client/": ["client/", "wire/"],
  "page/browser/": ["page/browser/", "client/", "wire/"],
};
/** What runs wherever there are web standards. */
const PORTABLE = ["lib/", "wire/", "request/", "redis/", "gate/", "client/", "mod.ts"];
const BUN_ONLY = ["redis/native.ts", "redis/diagnosis.ts"];

interface Import {
  readonly file: string;
  readonly target: string;
}

/** Everything that a file imports or exports from, types included. */
function importsOf(file: string, text: string): Import[] {
  const specifiers = text.matchAll(
    /(?:^|\n)\s*(?:import|export)\b[^;"']*?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g,
  );
  return [...specifiers].map((found) => {
    const specifier = (found[1] ?? found[2]) as string;
    const isOwn = specifier.startsWith(".");
    return { file, target: isOwn ? normalize(join(file, "..", specifier)) : specifier };
  });
}

function floorOf(file: string): number {
  return FLOORS.findIndex((floor) =>
    floor.endsWith("/") ? file.startsWith(floor) : file === floor,
  );
}

/** Every breach of the house's rules, as sentences. */
function breaches(files: ReadonlyMap<string, string>): string[] {
  const imports = [...files].flatMap(([file, text]) => importsOf(file, text));
  const own = imports.filter(({ target }) => files.has(target));
  return [
    ...own.filter(looksUp).map(({ file, target }) => `${file} looks up to ${target}`),
    ...circles(own).map((circle) => `Circle: ${circle.join(" > ")}`),
    ...imports.filter(usesHono).map(({ file }) => `${file} uses Hono`),
    ...[...files].flatMap(([file, text]) => (usesBun(file, text) ? [`${file} uses Bun`] : [])),
  ];
}

function looksUp({ file, target }: Import): boolean {
  const browser = Object.keys(BROWSER)
    .filter((room) => file.startsWith(room))
    .at(-1);
  if (browser) return !BROWSER[browser]?.some((room) => target.startsWith(room));
  // The pages' server half serves the browser's half as text.
  if (file === "page/files.ts") return false;
  const entry = ENTRIES[file];
  const floor = entry ? floorOf(entry) : floorOf(file);
  return floor < 0 || floorOf(target) < 0 || floorOf(target) > floor;
}

function circles(imports: readonly Import[]): string[][] {
  const targets = Map.groupBy(imports, ({ file }) => file);
  const done = new Set<string>();
  const found: string[][] = [];
  function visit(file: string, path: readonly string[]): void {
    const start = path.indexOf(file);
    if (start >= 0) found.push([...path.slice(start), file]);
    if (start >= 0 || done.has(file)) return;
    for (const { target } of targets.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  }
  for (const file of targets.keys()) visit(file, []);
  return found;
}

function usesHono({ file, target }: Import): boolean {
  const isHono = target === "hono" || target.startsWith("hono/");
  const mayUse = file.startsWith("page/") || /(?:^|\/)routes\.ts$/.test(file);
  return isHono && !mayUse;
}

function usesBun(file: string, text: string): boolean {
  const isPortable = PORTABLE.some((room) =>
    room.endsWith("/") ? file.startsWith(room) : file === room,
  );
  if (!isPortable || BUN_ONLY.includes(file)) return false;
  const code = text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*/g, "").replaceAll(/"[^"\n]*"/g, '""');
  const usesModule = importsOf(file, text).some(({ target }) => /^(?:bun|node):/.test(target));
  return usesModule || /(?<![.\w])Bun\b/.test(code.replaceAll(/\btypeof Bun\b/g, ""));
}

async function readSources(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for await (const file of new Bun.Glob("**/*.{ts,tsx}").scan(SOURCE)) {
    files.set(file, await Bun.file(join(SOURCE, file)).text());
  }
  return files;
}

test("every import goes to the same floor or a lower one, in no circle", async () => {
  const files = await readSources();
  expect(files.size).toBeGreaterThan(50);
  expect(breaches(files)).toEqual([]);
});

describe("the check finds", () => {
  const sources = readSources();

  test.each([
    [
      "a lower room that imports a higher one",
      "lib/clock.ts",
      'import { createGate } from "../gate/gate.ts";',
      "lib/clock.ts looks up to gate/gate.ts",
    ],
    [
      "a type that is imported upwards",
      "gate/store.ts",
      'import type { Socket } from "../sockets/socket.ts";',
      "gate/store.ts looks up to sockets/socket.ts",
    ],
    [
      "a dynamic import upwards",
      "wire/close.ts",
      'const gate = import("../gate/gate.ts");',
      "wire/close.ts looks up to gate/gate.ts",
    ],
    [
      "a client that sees the server",
      "client/api.ts",
      'import type { Chat } from "../chat/history.ts";',
      "client/api.ts looks up to chat/history.ts",
    ],
    [
      "an entry that exports too much",
      "mod.ts",
      'export { serve } from "./sockets/serve.ts";',
      "mod.ts looks up to sockets/serve.ts",
    ],
    [
      "Hono outside its rooms",
      "gate/admit.ts",
      'import { Hono } from "hono";',
      "gate/admit.ts uses Hono",
    ],
    [
      "a global of Bun in portable code",
      "gate/token.ts",
      "const hash = Bun.hash(text);",
      "gate/token.ts uses Bun",
    ],
    [
      "a module of Bun in portable code",
      "gate/memory.ts",
      'import { Database } from "bun:sqlite";',
      "gate/memory.ts uses Bun",
    ],
    [
      "a circle of types",
      "gate/identity.ts",
      'import type { Live } from "./live.ts";',
      "Circle: gate/identity.ts > gate/live.ts > gate/identity.ts",
    ],
  ])("%s", async (_, file, line, breach) => {
    const files = new Map(await sources);
    files.set(file, `${line}\n${files.get(file)}`);
    const found = breaches(files);
    expect(
      found.some((one) => one === breach || one.includes(breach.replace("Circle: ", ""))),
    ).toBe(true);
  });

  test("a file that stands in no room", async () => {
    const files = new Map(await sources);
    files.set("utils.ts", 'import { pause } from "./lib/clock.ts";');
    expect(breaches(files)).toContain("utils.ts looks up to lib/clock.ts");
  });
});
