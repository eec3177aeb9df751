import type { ChatLog, Retention } from "./chat/history.ts";
import { redisChatLog } from "./chat/redis.ts";
import type { Clock } from "./lib/clock.ts";
import type { Log } from "./lib/log.ts";
import { redisTicketStore } from "./gate/redis.ts";
import type { TicketStore } from "./gate/store.ts";
import { createFeed, type Feed } from "./redis/feed.ts";
import { nativeRedisTransport } from "./redis/native.ts";
import type { RedisTransport } from "./redis/transport.ts";

/** Where a Redis is, and how to reach it. */
export type RedisSettings =
  | { readonly kind: "upstash"; readonly url: string; readonly token: string }
  | { readonly kind: "native"; readonly url: string };

/** Everything that several servers share, in one Redis. */
export async function openRedis(
  settings: RedisSettings,
  options: { clock: Clock; log: Log; retention?: Partial<Retention> },
): Promise<{ store: TicketStore; chat: ChatLog; feed: Feed }> {
  const { clock, log, retention } = options;
  const open = await openerOf(settings);
  // Connections of their own: what waits in one must not hold up the others.
  const blocking = settings.kind === "native" ? open() : undefined;
  const feed = createFeed({ transport: open(), blocking, clock, log });
  return {
    feed,
    store: redisTicketStore(open(), feed),
    chat: redisChatLog({ transport: open(), feed, clock, retention }),
  };
}

/** How to open a connection. Upstash's client takes as long to load as all the rest: only who uses it waits. */
async function openerOf(settings: RedisSettings): Promise<() => RedisTransport> {
  if (settings.kind === "native") return () => nativeRedisTransport(settings);
  const { upstashTransport } = await import("./redis/upstash.ts");
  return () => upstashTransport(settings);
}
