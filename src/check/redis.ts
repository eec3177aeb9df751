import type { Clock } from "../lib/clock.ts";
import { toBase64url } from "../lib/encoding.ts";
import { faultCode } from "../lib/log.ts";
import { isLine } from "../lib/text.ts";
import { type RedisSettings, redisOpener } from "../open.ts";
import { DEFAULT_PREFIX } from "../redis/keys.ts";
import { RedisError, type RedisReply, type RedisTransport } from "../redis/transport.ts";
import { fault, good, reasonOf, type Report, warning } from "./report.ts";

/** Oldest version with GETDEL. */
const OLDEST: readonly [major: number, minor: number] = [6, 2];
/** How long what a check has written may stay, in milliseconds, if it can't be deleted. */
const TTL_MS = "10000";

/**
 * Every command that the server sends, those of its scripts included, each in a form that does no harm: on keys
 * of the check's own, in the order in which they find what they need.
 */
const COMMANDS: readonly (readonly [name: string, ...args: string[]])[] = [
  ["SET", "value", "1", "PX", TTL_MS],
  ["GET", "value"],
  ["MGET", "value"],
  ["EXISTS", "value"],
  ["PTTL", "value"],
  ["INCRBY", "value", "1"],
  ["PEXPIRE", "value", TTL_MS],
  ["GETDEL", "value"],
  ["HSET", "hash", "a", "1"],
  ["HGET", "hash", "a"],
  ["HMGET", "hash", "a"],
  ["HINCRBY", "hash", "a", "1"],
  ["HDEL", "hash", "a"],
  ["SADD", "set", "a"],
  ["SISMEMBER", "set", "a"],
  ["SCARD", "set"],
  ["SREM", "set", "a"],
  ["ZADD", "sorted", "1", "a"],
  ["ZCARD", "sorted"],
  ["ZSCORE", "sorted", "a"],
  ["ZRANGE", "sorted", "0", "-1"],
  ["ZREVRANGEBYSCORE", "sorted", "+inf", "-inf"],
  ["ZREMRANGEBYSCORE", "sorted", "-inf", "0"],
  ["ZREM", "sorted", "a"],
  ["XADD", "stream", "1-0", "a", "1"],
  ["XLEN", "stream"],
  ["XRANGE", "stream", "-", "+"],
  ["XREVRANGE", "stream", "+", "-"],
  ["XREAD", "COUNT", "1", "STREAMS", "stream", "0"],
  ["XINFO", "STREAM", "stream"],
  ["XTRIM", "stream", "MAXLEN", "0"],
  ["TIME"],
  ["EVAL", "return 1", "0"],
  ["EVALSHA", "0".repeat(40), "0"],
  ["UNLINK", "stream"],
  ["DEL", "value", "hash", "set", "sorted"],
];
const KEYS = new Set(["value", "hash", "set", "sorted", "stream"]);

/** Names of the commands that a Redis user has to be permitted. */
export const COMMAND_NAMES: readonly string[] = COMMANDS.map(([name]) => name);

/**
 * Connects as the server does, and says what it found: whether the Redis is of a kind that works, keeps what it
 * is given, and permits everything. `asks`: also tries every command, on keys of its own.
 */
export async function inspectRedis(
  settings: RedisSettings,
  { clock, triesAll }: { clock: Clock; triesAll: boolean },
): Promise<Report[]> {
  const subject = settings.token === undefined ? "REDIS_URL" : "UPSTASH_REDIS_REST_URL";
  const transport = (await redisOpener(settings, clock))();
  try {
    await transport.command(["PING"]);
    const facts = await readFacts(transport);
    return [
      ...inspectKind(subject, facts),
      ...inspectMemory(subject, facts),
      ...inspectPersistence(subject, facts),
      ...(triesAll ? await inspectCommands(subject, transport, settings.prefix) : []),
    ];
  } catch (error) {
    const code = faultCode(error);
    return [fault(subject, `can't be reached: ${code}`, reasonOf(code))];
  } finally {
    await transport.close();
  }
}

/**
 * What is wrong with a Redis that can never be used, found out before the server starts; `undefined` for any other
 * one, and for one that can't be reached now.
 */
export async function unusableKind(
  settings: RedisSettings,
  { clock }: { clock: Clock },
): Promise<Report | undefined> {
  const transport = (await redisOpener(settings, clock))();
  try {
    return kindFault(new Map(pairsOf(await transport.command(["HELLO"]))));
  } catch {
    return undefined;
  } finally {
    await transport.close();
  }
}

/** What a Redis says of itself, by the names of INFO, HELLO and CONFIG. */
type Facts = ReadonlyMap<string, string>;

async function readFacts(transport: RedisTransport): Promise<Facts> {
  const facts = new Map<string, string>();
  // A user who may not see INFO, as it should be, gets the version and the kind in HELLO.
  const hello = pairsOf(await permitted(transport, ["HELLO"]));
  for (const [name, value] of hello) facts.set(name === "version" ? "redis_version" : name, value);
  for (const line of String((await permitted(transport, ["INFO"])) ?? "").split("\n")) {
    const [, name, value] = /^(\w+):(.*?)\r?$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) facts.set(name, value);
  }
  for (const setting of ["appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy"]) {
    for (const [name, value] of pairsOf(await permitted(transport, ["CONFIG", "GET", setting]))) {
      facts.set(name, value);
    }
  }
  return facts;
}

/** The reply to a command; `undefined` where Redis refuses it. */
async function permitted(
  transport: RedisTransport,
  command: readonly string[],
): Promise<RedisReply | undefined> {
  try {
    return await transport.command(command);
  } catch (error) {
    if (error instanceof RedisError) return undefined;
    throw error;
  }
}

function pairsOf(reply: RedisReply | undefined): [name: string, value: string][] {
  if (!Array.isArray(reply)) return [];
  const pairs: [string, string][] = [];
  for (let at = 1; at < reply.length; at += 2) {
    pairs.push([String(reply[at - 1]), String(reply[at])]);
  }
  return pairs;
}

function inspectKind(subject: string, facts: Facts): Report[] {
  const name = facts.get("server_name") ?? facts.get("server") ?? "redis";
  const version = facts.get("valkey_version") ?? facts.get("redis_version") ?? "";
  const found = `reachable: ${isLine(name, 20) ? name : "redis"} ${isLine(version, 20) ? version : "of unknown version"}`;
  const reports: Report[] = [];
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (version !== "" && (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))) {
    reports.push(fault(subject, found, "Redis 6.2 or newer is needed, or Valkey"));
  }
  const unusable = kindFault(facts);
  if (unusable) reports.push(unusable);
  if (["slave", "replica"].includes(facts.get("role") ?? "")) {
    reports.push(fault(subject, "a replica", "It can't be written to: name the master"));
  }
  return reports.length > 0 ? reports : [good(subject, found)];
}

function kindFault(facts: Facts): Report | undefined {
  const kind = facts.get("redis_mode") ?? facts.get("mode");
  if (kind === "cluster") {
    const note = "A cluster can't run the scripts, whose keys are in several slots: use one Redis";
    return fault("REDIS_URL", "a cluster", note);
  }
  if (kind !== "sentinel") return undefined;
  const note =
    "A Sentinel knows where the master is and stores nothing: put a proxy in front that leads to it";
  return fault("REDIS_URL", "a Sentinel", note);
}

function inspectMemory(subject: string, facts: Facts): Report[] {
  const policy = facts.get("maxmemory-policy") ?? facts.get("maxmemory_policy");
  if (policy === undefined) return [good(subject, "maxmemory-policy: not for this user to read")];
  if (policy === "noeviction" || facts.get("maxmemory") === "0") {
    return [good(subject, `maxmemory-policy ${policy}`)];
  }
  const note = "Tickets, sign-outs and chats are dropped when memory is short: set noeviction";
  return [warning(subject, `maxmemory-policy ${policy}`, note)];
}

function inspectPersistence(subject: string, facts: Facts): Report[] {
  const isAppending = facts.get("aof_enabled") ?? facts.get("appendonly");
  if (isAppending === undefined) return [good(subject, "persistence: not for this user to read")];
  if (isAppending === "1" || isAppending === "yes") {
    const fsync = facts.get("appendfsync");
    return fsync === "no"
      ? [warning(subject, "appendfsync no", "Acknowledged messages are lost with the machine")]
      : [good(subject, `append-only file${fsync === undefined ? "" : `, fsync ${fsync}`}`)];
  }
  const note = "Chats, sign-outs and used tickets are forgotten at a restart: set appendonly yes";
  const saves = facts.get("save");
  const found = saves === undefined || saves === "" ? "no persistence" : "snapshots only";
  return [warning(subject, found, note)];
}

async function inspectCommands(
  subject: string,
  transport: RedisTransport,
  prefix: string = DEFAULT_PREFIX,
): Promise<Report[]> {
  const own = `${prefix}check:${toBase64url(crypto.getRandomValues(new Uint8Array(9)))}:`;
  const denied: string[] = [];
  for (const [name, ...args] of COMMANDS) {
    try {
      await transport.command([name, ...args.map((arg) => (KEYS.has(arg) ? own + arg : arg))]);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      if (error.code === "NOPERM") denied.push(name);
      // EVALSHA of what was never loaded; an increment of nothing.
      else if (error.code === "OOM" || error.code === "READONLY" || error.code === "MISCONF") {
        const code = faultCode(error);
        return [fault(subject, `${name} is refused: ${code}`, reasonOf(code))];
      }
    }
  }
  if (denied.length === 0) return [good(subject, `all ${COMMANDS.length} commands permitted`)];
  const withKeys = COMMANDS.filter((command) => command.some((word) => KEYS.has(word)));
  if (withKeys.every(([name]) => denied.includes(name))) {
    return [
      fault(
        subject,
        `no command on ${prefix}* permitted`,
        "The ACL of this user needs ~ and the prefix of the keys and *, as in ~ws-ticket:*",
      ),
    ];
  }
  const words = denied.map((name) => `+${name.toLowerCase()}`).join(" ");
  return [
    fault(
      subject,
      `not permitted: ${words}`,
      "The ACL of this user lacks commands that the server sends",
    ),
  ];
}
