import type { ChatHistory, Retention } from "./chat/history.ts";
import type { Config } from "./config.ts";
import type { TicketStore } from "./gate/store.ts";
import { type Clock, systemClock } from "./lib/clock.ts";
import { createLog, type Log } from "./lib/log.ts";
import { requirePrefix } from "./redis/keys.ts";
import type { RedisTransport } from "./redis/transport.ts";

/** Where a Redis is: `redis://…` or `rediss://…`, or Upstash's REST URL with its token. */
export interface RedisSettings {
  /** Of the server, with the credentials of a native connection. */
  readonly url: string;
  /** Only for Upstash. */
  readonly token?: string | undefined;
  /** Start of every key. Default `ws-ticket:`. Servers with different ones don't see each other. */
  readonly prefix?: string | undefined;
}

/** What several servers share in one Redis. The two belong together. */
export interface SharedRedis {
  /** For `createGate`, which then owns it and closes it. Receives the sign-outs of other processes. */
  readonly store: TicketStore;
  /** For `createChat`, whose handlers then own it. Needs the store to be open. */
  readonly chat: ChatHistory;
}

/**
 * Opens a Redis that several servers share. Connects with the first command, and again after every failure.
 * Throws a `TypeError` for settings that can't be used.
 *
 * @example
 * const redis = await openRedis({ url: "redis://127.0.0.1:6379" });
 * await using gate = createGate({ users: { secret }, store: redis.store });
 * const chat = createChat(gate, redis.chat);
 */
export async function openRedis(
  settings: RedisSettings,
  options: {
    clock?: Clock | undefined;
    /** Default: warnings and errors to the console. */
    log?: Log | undefined;
    retention?: Partial<Retention> | undefined;
  } = {},
): Promise<SharedRedis> {
  const { clock = systemClock, retention } = options;
  const log =
    options.log ??
    createLog({ level: "warn", clock, write: (line) => console.log(line.trimEnd()) });
  const open = await redisOpener(settings, clock);
  const prefix = requirePrefix(settings.prefix);
  const { createFeed } = await import("./redis/feed.ts");
  const { sharedTicketStore } = await import("./gate/redis.ts");
  const { redisChatHistory } = await import("./chat/redis.ts");
  // Connections of their own: what waits in one must not hold up the others.
  const blocking = settings.token === undefined ? open() : undefined;
  const feed = createFeed({ transport: open(), blocking, prefix, clock, log });
  return {
    store: sharedTicketStore({ transport: open(), feed, prefix }),
    chat: redisChatHistory({ transport: open(), feed, prefix, clock, retention }),
  };
}

/** How to open one more connection. Only what is used is loaded: Upstash's client doubles the time to start. */
export async function redisOpener(
  { url, token }: RedisSettings,
  clock: Clock,
): Promise<() => RedisTransport> {
  const protocol = URL.canParse(url) ? new URL(url).protocol : "";
  if (token === undefined) {
    if (!/^(?:redis|valkey)s?:$/.test(protocol)) {
      throw new TypeError("Option url must be a redis:// or rediss:// URL");
    }
    const { nativeRedisTransport } = await import("./redis/native.ts");
    return () => nativeRedisTransport({ url, clock });
  }
  if (!/^https?:$/.test(protocol)) throw new TypeError("Option url must be an https URL");
  const { upstashClientTransport } = await import("./redis/upstash-client.ts");
  return () => upstashClientTransport({ url, token, clock });
}

/** How long a starting process waits for one that ends, in milliseconds: longer than that takes. */
const HANDOVER_MS = 15_000;

/** Opens what the configuration names. Rejects when the chat's database can't be used, or another process uses it. */
export async function openStores(
  config: Pick<Config, "redis" | "chatDatabase" | "retention">,
  options: { clock: Clock; log: Log },
): Promise<SharedRedis> {
  const { retention } = config;
  if (config.redis) return openRedis(config.redis, { ...options, retention });
  const { clock, log } = options;
  const { memoryTicketStore } = await import("./gate/memory.ts");
  const { sqliteChatHistory } = await import("./chat/sqlite.ts");
  const store = memoryTicketStore({ clock });
  const path = config.chatDatabase;
  const { isFile } = await import("./chat/database.ts");
  if (!isFile(path)) return { store, chat: sqliteChatHistory({ path, clock, retention }) };
  const { lockFile } = await import("./chat/lock.ts");
  const release = await lockFile(path, {
    withinMs: HANDOVER_MS,
    clock,
    onWait: () => log("warn", "open_waits", { variable: "CHAT_DATABASE", code: "in_use" }),
  });
  try {
    const chat = sqliteChatHistory({ path, clock, retention });
    return { store, chat: { ...chat, close: () => chat.close().finally(release) } };
  } catch (error) {
    release();
    throw error;
  }
}
