import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { COMMAND_NAMES, inspectRedis } from "../../src/check/redis.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { freePort, startRedis, startSentinel, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startUpstashBridge } from "../support/upstash.ts";

async function look(
  settings: { url: string; token?: string },
  { triesAll = true } = {},
): Promise<string[]> {
  const reports = await inspectRedis(settings, { clock: systemClock, triesAll });
  return reports.map(({ level, found }) => `${level}: ${found}`);
}

const REACHABLE = expect.stringMatching(/^ok: reachable: (?:redis|valkey) \d+\.\d+\.\d+$/);
const ALL = `ok: all ${COMMAND_NAMES.length} commands permitted`;

test("the commands that are tried are those that the server sends", async () => {
  const files = [
    "chat/redis.ts",
    "chat/scripts.ts",
    "gate/redis.ts",
    "redis/feed.ts",
    "redis/script.ts",
  ];
  const sources = await Promise.all(
    files.map((file) => Bun.file(join(import.meta.dir, "../../src", file)).text()),
  );
  const words = sources.join("\n").matchAll(/["']([A-Z]{3,})["']/g);
  const options = new Set([
    "COUNT",
    "BLOCK",
    "STREAMS",
    "MAXLEN",
    "LIMIT",
    "MINID",
    "NOSCRIPT",
    "STREAM",
    "WITHSCORES",
  ]);
  const sent = new Set(
    [...words].map(([, word = ""]) => word).filter((word) => !options.has(word)),
  );
  expect([...sent].toSorted()).toEqual([...new Set(COMMAND_NAMES)].toSorted());
});

describe("by what a Redis says of itself", () => {
  const SERVER = ["server", "redis"];

  /** Looks at something that answers these commands over REST, and refuses all others. */
  async function lookAt(
    replies: Record<string, unknown>,
    { triesAll = false, refusal = "NOPERM not permitted" } = {},
  ): Promise<string[]> {
    using server = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0 },
      async fetch(request) {
        const command = ((await request.json()) as string[]).join(" ");
        const result = command === "PING" ? "PONG" : replies[command];
        if (result instanceof Response) return result.clone();
        return Response.json(result === undefined ? { error: refusal } : { result });
      },
    });
    return await look({ url: server.url.href, token: "token" }, { triesAll });
  }

  test.each([
    ["5.0.14", "fault"],
    ["5.9.0", "fault"],
    ["6.0.16", "fault"],
    ["6.1.240", "fault"],
    ["6.2.0", "ok"],
    ["7.0.0", "ok"],
    ["10.0.1", "ok"],
  ])("version %s is %s: GETDEL came with 6.2", async (version, level) => {
    const [kind] = await lookAt({ HELLO: [...SERVER, "version", version] });
    expect(kind).toBe(`${level}: reachable: redis ${version}`);
    const [again] = await lookAt({ INFO: `# Server\r\nredis_version:${version}\r\n` });
    expect(again).toBe(`${level}: reachable: redis ${version}`);
  });

  test.each(["MISCONF", "OOM", "READONLY"])("one that refuses writes with %s", async (code) => {
    const refusal = `${code} some reason`;
    const found = await lookAt({}, { triesAll: true, refusal });
    expect(found.at(-1)).toStartWith("fault: SET is refused: ");
  });

  test("one that breaks down meanwhile can't be reached", async () => {
    const broken = new Response("", { status: 500 });
    for (const command of ["HELLO", "INFO", "CONFIG GET save"]) {
      const found = await lookAt({ [command]: broken });
      expect(found).toEqual([expect.stringMatching(/^fault: can't be reached: status_500/)]);
    }
  });

  test("one that doesn't say its version is good", async () => {
    expect((await lookAt({}))[0]).toBe("ok: reachable: redis of unknown version");
  });

  test("a Valkey counts by the Redis that it is compatible with, and is shown by its own version", async () => {
    const info = "redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.1.1\n";
    expect((await lookAt({ INFO: info }))[0]).toBe("ok: reachable: valkey 8.1.1");
  });

  test("what would spoil a terminal isn't shown", async () => {
    const hello = ["server", `a\u001b[31m`, "version", "7".repeat(21)];
    expect((await lookAt({ HELLO: hello }))[0]).toBe("ok: reachable: redis of unknown version");
  });

  test.each([["slave"], ["replica"]])("%s is a replica", async (role) => {
    expect(await lookAt({ HELLO: [...SERVER, "role", role] })).toContain("fault: a replica");
    expect(await lookAt({ INFO: `role:${role}` })).toContain("fault: a replica");
  });

  test.each([
    ["cluster", "fault: a cluster"],
    ["sentinel", "fault: a Sentinel"],
    ["standalone", "ok: reachable: redis of unknown version"],
  ])("mode %s: %s", async (mode, found) => {
    expect(await lookAt({ HELLO: [...SERVER, "mode", mode] })).toContain(found);
    expect(await lookAt({ INFO: `redis_mode:${mode}` })).toContain(found);
  });

  test.each<[string, Record<string, unknown>, string]>([
    ["INFO alone", { INFO: "aof_enabled:1" }, "ok: append-only file"],
    ["CONFIG alone", { "CONFIG GET appendonly": ["appendonly", "yes"] }, "ok: append-only file"],
    ["neither", {}, "ok: persistence: not for this user to read"],
    ["no file, and no word of snapshots", { INFO: "aof_enabled:0" }, "warn: no persistence"],
  ])("persistence by %s", async (_, replies, found) => {
    expect(await lookAt(replies)).toContain(found);
  });
});

describeWith("redis-server")("a Redis", () => {
  test("with everything as it should be is good, and keeps nothing of the check", async () => {
    await using redis = await startRedis(["--appendonly", "yes", "--appendfsync", "always"]);
    expect(await look(redis)).toEqual([
      REACHABLE,
      "ok: maxmemory-policy noeviction",
      "ok: append-only file, fsync always",
      ALL,
    ]);
    expect(await redis.command("KEYS", "*")).toEqual([]);
    // Each command is one that Redis carries out, but for a script that it doesn't have.
    const errors = String(await redis.command("INFO", "errorstats")).match(/errorstat_\w+/g);
    expect(errors).toEqual(["errorstat_NOSCRIPT"]);
  });

  test("over Upstash is looked at all the same", async () => {
    await using redis = await startRedis(["--appendonly", "yes"]);
    await using bridge = await startUpstashBridge(redis.url);
    const { url, token } = bridge;
    const reports = await inspectRedis({ url, token }, { clock: systemClock, triesAll: true });
    expect(reports.every(({ level }) => level === "ok")).toBe(true);
    expect(reports.map(({ subject }) => subject)).toContain("UPSTASH_REDIS_REST_URL");
    expect(reports.map(({ found }) => `ok: ${found}`)).toContain(ALL);
  });

  test("whose commands aren't to be tried is sent none of them", async () => {
    await using redis = await startRedis(["--appendonly", "yes"]);
    expect(await look(redis, { triesAll: false })).toHaveLength(3);
    expect(String(await redis.command("INFO", "commandstats"))).not.toContain("cmdstat_xadd");
  });

  test.each<[string, string[], string]>([
    [
      "that evicts",
      ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"],
      "warn: maxmemory-policy allkeys-lru",
    ],
    ["that keeps nothing", [], "warn: no persistence"],
    ["that keeps snapshots", ["--save", "60 1"], "warn: snapshots only"],
    [
      "that never waits for the disk",
      ["--appendonly", "yes", "--appendfsync", "no"],
      "warn: appendfsync no",
    ],
    ["that is a cluster", ["--cluster-enabled", "yes"], "fault: a cluster"],
    ["that is a replica", ["--replicaof", `127.0.0.1 ${freePort()}`], "fault: a replica"],
    ["that is out of memory", ["--maxmemory", "1"], "fault: SET is refused: out_of_memory"],
  ])("%s is told", async (_, args, found) => {
    await using redis = await startRedis(args);
    expect(await look(redis)).toContain(found);
  });

  test("without a limit to its memory evicts nothing, whatever the policy", async () => {
    await using redis = await startRedis(["--maxmemory-policy", "allkeys-lru"]);
    expect(await look(redis)).toContain("ok: maxmemory-policy allkeys-lru");
  });

  async function withUser(redis: TestRedis, ...rules: string[]): Promise<string> {
    await redis.command("ACL", "SETUSER", "ws", "on", ">pw", ...rules);
    return `redis://ws:pw@127.0.0.1:${redis.port}`;
  }

  test("whose user may do what is needed and no more is good", async () => {
    await using redis = await startRedis(["--appendonly", "yes"]);
    const url = await withUser(
      ...[redis, "~ws-ticket:*", "-@all", "+@read", "+@write", "+@scripting", "+@connection"],
      ...["+time", "-@dangerous"],
    );
    expect(await look({ url })).toEqual([
      REACHABLE,
      "ok: maxmemory-policy: not for this user to read",
      "ok: persistence: not for this user to read",
      ALL,
    ]);
  });

  test("whose user lacks commands is a fault, with the words that the ACL lacks", async () => {
    await using redis = await startRedis();
    const url = await withUser(redis, "~ws-ticket:*", "+@all", "-getdel", "-xadd", "-eval");
    expect(await look({ url })).toContain("fault: not permitted: +getdel +xadd +eval");
  });

  test("whose user may not touch the keys is a fault", async () => {
    await using redis = await startRedis();
    const url = await withUser(redis, "~other:*", "+@all");
    expect(await look({ url })).toContain("fault: no command on ws-ticket:* permitted");
  });

  test("with another password is a fault, which shows none of the two", async () => {
    await using redis = await startRedis(["--requirepass", "canary-right"]);
    const reports = await inspectRedis(
      { url: `redis://:canary-wrong@127.0.0.1:${redis.port}` },
      { clock: systemClock, triesAll: true },
    );
    expect(reports).toMatchObject([{ level: "fault", found: "can't be reached: wrong_password" }]);
    expect(JSON.stringify(reports)).not.toContain("canary");
  });

  test("that isn't there is a fault", async () => {
    expect(await look({ url: `redis://127.0.0.1:${freePort()}` })).toEqual([
      "fault: can't be reached: connection_refused",
    ]);
  });

  test("of which only the Sentinel is named is a fault", async () => {
    await using sentinel = await startSentinel();
    expect(await look(sentinel)).toContain("fault: a Sentinel");
  });
});
