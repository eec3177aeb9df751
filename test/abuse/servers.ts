import { Database } from "bun:sqlite";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type KeyServer, startKeyServer } from "../support/keys.ts";
import { startInstance, type TestInstance } from "../support/process.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startUpstashBridge } from "../support/upstash.ts";
import { newKey } from "./tokens.ts";

/** Where tickets and chats are. */
export const BACKENDS = ["SQLite", "Redis", "Upstash"] as const;
export type Backend = (typeof BACKENDS)[number];

/** Open files of each process: few, so that they are worth something. */
export const OPEN_FILES = 1_024;
export const ADMIN_TOKEN = "an admin token of 32 bytes or more".replaceAll(" ", "-");

/** As shipped, behind a proxy that says who everybody is; `startInstance` would switch limits off. */
const ENVIRONMENT = {
  TRUST_PROXY: "1",
  ADMIN_TOKEN,
  TICKETS_PER_MINUTE: "60",
  MESSAGES_PER_SECOND: "20",
  MAX_SOCKETS_PER_IDENTITY: "20",
  CHARACTERS_PER_MINUTE: "40000",
};

/** What somebody has left behind. */
export interface Traces {
  /** Messages, blocks and sign-outs. */
  readonly rows: number;
  /** In the feed. */
  readonly entries: number;
  /** Of all servers' logs. */
  readonly logBytes: number;
  /** Of all servers' time on a processor, in milliseconds. */
  readonly cpuMs: number;
}

/** Servers on one backend: one process, or two that share a Redis. */
export interface Servers extends AsyncDisposable {
  readonly origins: readonly string[];
  /** What tokens are signed with, where it is no secret that all know. */
  readonly key: string | undefined;
  /** Of users whose names begin like this, and of the visitors that they have chats with. */
  traces(name: string): Promise<Traces>;
}

export async function startServers(backend: Backend): Promise<Servers> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-abuse-"));
  const file = join(directory, "chat.sqlite");
  const redis = backend === "SQLite" ? undefined : await startRedis();
  const bridge = backend === "Upstash" && redis ? await startUpstashBridge(redis.url) : undefined;
  // One backend has an issuer with keys of its own, whose tokens take longer to verify.
  const key = backend === "Redis" ? await newKey() : undefined;
  const keys: KeyServer | undefined = key && startKeyServer(key.shared);
  const environment: Record<string, string> = {
    ...ENVIRONMENT,
    ...(keys && { JWT_SECRET: "", JWT_JWKS_URL: keys.url.href }),
    ...(!redis && { CHAT_DATABASE: file }),
    ...(redis && !bridge && { REDIS_URL: redis.url }),
    ...(bridge && { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token }),
  };
  const within = ["sh", "-c", `ulimit -n ${OPEN_FILES} && exec "$@"`, "sh"];
  const instances: TestInstance[] = await Promise.all(
    Array.from({ length: redis ? 2 : 1 }, () => startInstance(environment, { within })),
  );
  return {
    origins: instances.map(({ origin }) => origin),
    key: key?.secret,
    async traces(name) {
      const logBytes = instances.reduce((sum, { stdout }) => sum + stdout.length, 0);
      const times = await Promise.all(instances.map(({ pid }) => cpuMsOf(pid)));
      const cpuMs = times.reduce((sum, ms) => sum + ms, 0);
      const stored = redis ? await tracesInRedis(redis, name) : tracesIn(file, name);
      return { ...stored, logBytes, cpuMs };
    },
    async [Symbol.asyncDispose]() {
      for (const instance of instances) await instance[Symbol.asyncDispose]();
      await keys?.[Symbol.asyncDispose]();
      await bridge?.[Symbol.asyncDispose]();
      await redis?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** What a process has used so far, in clock ticks of Linux: a hundredth of a second. */
async function cpuMsOf(pid: number): Promise<number> {
  const stat = await Bun.file(`/proc/${pid}/stat`).text();
  const [user = 0, system = 0] = stat.split(") ")[1]?.split(" ").slice(11, 13).map(Number) ?? [];
  return (user + system) * 10;
}

type Stored = Pick<Traces, "rows" | "entries">;

/** Sign-outs are in the server's memory, where nobody can count them. */
function tracesIn(file: string, name: string): Stored {
  using db = new Database(file, { readonly: true });
  const rows = db
    .query<{ count: number }, [string]>(
      `SELECT (SELECT count(*) FROM messages JOIN chats ON chats.key = messages.chat
               WHERE user LIKE ?1 || '%')
            + (SELECT count(*) FROM blocks WHERE user LIKE ?1 || '%') AS count`,
    )
    .get(name);
  return { rows: rows?.count ?? 0, entries: 0 };
}

const COUNT_TRACES = `
  local name, rows, entries = ARGV[1], 0, 0
  local function count(pattern, command)
    for _, key in ipairs(redis.call('KEYS', pattern)) do
      rows = rows + (command and redis.call(command, key) or 1)
    end
  end
  count('ws-ticket:chat:messages:*:' .. name .. '*', 'XLEN')
  count('ws-ticket:chat:blocked:' .. name .. '*', 'SCARD')
  count('ws-ticket:revoked:*')
  for _, entry in ipairs(redis.call('XRANGE', 'ws-ticket:feed', '-', '+')) do
    for _, field in ipairs(entry[2]) do
      if field:find(name, 1, true) then
        entries = entries + 1
        break
      end
    end
  end
  return {rows, entries}
`;

async function tracesInRedis(redis: TestRedis, name: string): Promise<Stored> {
  const reply = await redis.command("EVAL", COUNT_TRACES, "0", name);
  const [rows = 0, entries = 0] = (reply as unknown[]).map(Number);
  return { rows, entries };
}
