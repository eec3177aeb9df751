import { describe, expect, test } from "bun:test";
import { Glob } from "bun";
import { basename, join } from "node:path";
import { createMetrics } from "../src/metrics.ts";
import { systemClock } from "../src/lib/clock.ts";
import { readConfig } from "../src/config.ts";
import {
  MAX_BLOCKS,
  MAX_PAGE_LENGTH,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  UNANSWERED_TTL_MS,
} from "../src/chat/history.ts";
import { MAX_TOKEN_LENGTH } from "../src/gate/token.ts";
import { createGate } from "../src/mod.ts";
import { REFUSAL_CODES } from "../src/request/refusal.ts";
import { readLimits } from "../src/sockets/limits.ts";
import { CLOSE } from "../src/wire/close.ts";
import {
  FRAME_ERRORS,
  MAX_CONTENT_LENGTH,
  MAX_NICKNAME_LENGTH,
  MAX_REF_LENGTH,
} from "../src/wire/frames.ts";
import manifest from "../package.json" with { type: "json" };

const ROOT = join(import.meta.dir, "..");
const RECIPES = join(ROOT, "test/recipes");
/** The source of every entry, where the tests import it. */
const ENTRIES = {
  ".": join(ROOT, "src/mod.ts"),
  "./bun": join(ROOT, "src/bun.ts"),
  "./client": join(ROOT, "src/client/mod.ts"),
  "./testing": join(ROOT, "src/testing.ts"),
};
const readme = await Bun.file(join(ROOT, "README.md")).text();

/** What stands between two lines of the README. */
function between(start: string, end: string): string {
  const from = readme.indexOf(start);
  const to = readme.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`README has no part from ${start} to ${end}`);
  return readme.slice(from, to);
}

/** Names that the README doesn't have as code. */
function missing(names: readonly string[]): string[] {
  return names.filter(
    (name) => !new RegExp(String.raw`[\x60.{ (]${name}[\x60(), :?]`).test(readme),
  );
}

describe("the README names", () => {
  test("every refusal, every error frame and every close code", () => {
    expect(missing([...REFUSAL_CODES, ...Object.keys(FRAME_ERRORS)])).toEqual([]);
    const codes = Object.values(CLOSE).map(({ code }) => String(code));
    const table = between("| Code ", "### The chat");
    expect(codes.filter((code) => !table.includes(code))).toEqual([]);
  });

  test("every variable that is read, and no other", () => {
    const read = new Set<string>();
    readConfig(
      new Proxy<Record<string, string>>(
        {},
        {
          get(_, name) {
            read.add(String(name));
            return undefined;
          },
        },
      ),
    );
    read.delete("NODE_ENV");
    const table = between("### Settings", "### Metrics");
    const named = [...table.matchAll(/`([A-Z]{3,}(?:_[A-Z]+)*)`/g)].map(([, name]) => name);
    expect([...read].filter((name) => !named.includes(name))).toEqual([]);
    const others = new Set(["SIGTERM", "SIGINT"]);
    expect(named.filter((name = "") => !read.has(name) && !others.has(name))).toEqual([]);
  });

  test("every metric", async () => {
    const metrics = createMetrics(systemClock);
    metrics.describe({ version: "1", maxSockets: 1, feedLagMs: () => 0 });
    const names = (await metrics.read()).matchAll(/^# TYPE (\w+)/gm);
    expect(missing([...names].map(([, name = ""]) => name))).toEqual([]);
  });

  test("every event of the log, and every word for what is wrong with a dependency", async () => {
    for (const [file, type] of [
      ["src/lib/log.ts", "LogEvent"],
      ["src/lib/fault.ts", "DependencyFault"],
    ] as const) {
      const source = await Bun.file(join(ROOT, file)).text();
      const body = new RegExp(`type ${type} =([^;]*);`).exec(source)?.[1] ?? "";
      const words = [...body.matchAll(/"(\w+)"/g)].map(([, word = ""]) => word);
      expect(words.length).toBeGreaterThan(5);
      expect(missing(words)).toEqual([]);
    }
  });

  test("every default that is a number, in the row of its variable", () => {
    const read = readConfig({ LOG_LEVEL: "info", SESSION_SECRET: "", JWT_SECRET: "" });
    if (!read.ok) throw new Error("No configuration");
    const { config } = read;
    const secrets = { JWT_SECRET: "a secret of the tests, for tokens and cookies" };
    const real = readConfig({ ...secrets, SESSION_SECRET: secrets.JWT_SECRET });
    if (!real.ok) throw new Error("No configuration");
    const server = real.config;
    const { maxPerIdentity, messagesPerSecond, maxMessageBytes } = readLimits();
    const defaults: Record<string, readonly number[]> = {
      PORT: [config.port],
      TRUST_PROXY: [config.trustProxy],
      DRAIN_DELAY_SECONDS: [server.drainDelayMs / 1000],
      CHAT_DATABASE: [config.retention.maxMessages, config.retention.maxAgeMs / 86_400_000],
      TICKET_TTL_SECONDS: [config.ticketTtlMs / 1000, config.ticketsPerMinute],
      CHARACTERS_PER_MINUTE: [config.charactersPerMinute],
      MAX_SOCKETS_PER_IDENTITY: [maxPerIdentity, messagesPerSecond, maxMessageBytes],
    };
    const rows = between("### Settings", "### Metrics").match(/^\|.*/gm) ?? [];
    for (const [variable, values] of Object.entries(defaults)) {
      const row = rows.find((line) => line.includes(`\`${variable}\``)) ?? "";
      const cell = row.split("|")[2] ?? "";
      expect({ variable, cell: cell.trim() }).toEqual({
        variable,
        cell: expect.stringMatching(new RegExp(String.raw`\b${values.join(", ")}$`)),
      });
    }
  });

  test("every limit of the wire", () => {
    const limits = between("| Fixed limit", "| Store ");
    for (const limit of [
      MAX_CONTENT_LENGTH,
      MAX_NICKNAME_LENGTH,
      MAX_REF_LENGTH,
      MAX_TOKEN_LENGTH,
    ]) {
      expect(limits).toMatch(new RegExp(` ${limit.toLocaleString("en")}\\b(?!,\\d)`));
    }
    const days = UNANSWERED_TTL_MS / 86_400_000;
    expect(MAX_UNANSWERED).toBe(10);
    expect(limits).toContain(
      `${MAX_UNANSWERED_MESSAGES} messages to a user who has never answered, ten such users, for ${days} days`,
    );
    expect(limits).toContain(`${MAX_BLOCKS.toLocaleString("en")} blocked visitors`);
    expect(limits).toContain(`pages of ${MAX_PAGE_LENGTH.toLocaleString("en")} characters`);
  });

  test("every entry of the package and every value that it exports", async () => {
    for (const [entry, file] of Object.entries(ENTRIES)) {
      expect(readme).toContain(`\`${join("ws-ticket", entry)}\``);
      expect({ entry, missing: missing(Object.keys(await import(file))) }).toEqual({
        entry,
        missing: [],
      });
    }
  });

  test("every method and option of the gate, every option of the sockets", async () => {
    await using gate = createGate({ users: () => undefined });
    const methods = Object.keys(gate).filter((name) => name !== "basePath");
    expect(methods.filter((name) => !readme.includes(`gate.${name}(`))).toEqual([]);
    const options = await Promise.all([
      membersOf("src/gate/gate-options.ts", "GateOptions"),
      membersOf("src/gate/gate-options.ts", "TokenOptions"),
      membersOf("src/sockets/serve.ts", "ServeOptions"),
      membersOf("src/sockets/limits.ts", "SocketLimits"),
      membersOf("src/sockets/socket.ts", "SocketHandlers"),
      membersOf("src/sockets/socket.ts", "SocketData"),
    ]);
    expect(options.every((names) => names.length > 1)).toBe(true);
    expect(missing(options.flat())).toEqual([]);
  });

  test("every recipe", async () => {
    const names = await Array.fromAsync(new Glob("*.{ts,html}").scan(RECIPES));
    const programs = names.filter((name) => name !== "program.ts" && !name.includes(".test."));
    expect(programs.length).toBeGreaterThan(8);
    expect(programs.filter((name) => !readme.includes(name))).toEqual([]);
  });

  test("the two commands that set it up", () => {
    expect(readme).toContain("```sh\nbun install && bun start\n```");
    expect(readme).toContain("`bun install && bun run test`");
    expect(Object.keys(manifest.scripts)).toContainValues(["start", "test"]);
  });
});

test("every line of code in the README is a line of the recipe that the tests run, in its order", async () => {
  const blocks = [...readme.matchAll(/```[jt]s\n([\s\S]*?)```/g)].map(([, code = ""]) => code);
  const parts = blocks.flatMap((code) => code.split(/^(?=\/\/ [\w.-]+\.(?:ts|html)\b)/m));
  expect(parts.length).toBeGreaterThan(8);
  for (const part of parts) {
    const [title = "", ...lines] = part.split("\n").map((line) => line.trim());
    const file = /^\/\/ ([\w.-]+\.(?:ts|html))/.exec(title)?.[1] ?? "";
    expect(basename(file)).not.toBe("");
    const program = (await Bun.file(join(RECIPES, file)).text()).split("\n");
    const rest = program.map((line) => line.trim());
    for (const line of lines.filter(Boolean)) {
      const at = rest.indexOf(line);
      expect({ file, line, isThere: at >= 0 }).toEqual({ file, line, isThere: true });
      rest.splice(0, at + 1);
    }
  }
});

test("the client has the sizes that the README says: with the chat, and with everything", async () => {
  const said = [.../(\d+) KB gzipped, (\d+) with/.exec(readme)!].slice(1);
  const sizes = ['export { createChatClient } from "/client";', 'export * from "/client";'];
  for (const [at, text] of sizes.entries()) {
    const program = text.replace("/client", ENTRIES["./client"]);
    const built = await Bun.build({
      entrypoints: ["/program.js"],
      files: { "/program.js": program },
      target: "browser",
      minify: true,
    });
    const bytes = Bun.gzipSync((await built.outputs[0]?.arrayBuffer()) ?? "").length;
    expect(Math.round(bytes / 1024)).toBe(Number(said[at]));
  }
});

/** The members of an interface, as its source lists them. */
async function membersOf(file: string, name: string): Promise<string[]> {
  const source = await Bun.file(join(ROOT, file)).text();
  const body = new RegExp(String.raw`interface ${name}\b[^{]*\{\n([\s\S]*?)\n\}`).exec(source)?.[1];
  return [...(body ?? "").matchAll(/^ {2}(?:readonly )?(\w+)\??[:(]/gm)].map(
    ([, member = ""]) => member,
  );
}
