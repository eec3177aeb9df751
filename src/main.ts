import { createChat } from "./chat/hub.ts";
import type { ChatLog } from "./chat/log.ts";
import { redisChatLog } from "./chat/redis.ts";
import { sqliteChatLog } from "./chat/sqlite.ts";
import { systemClock } from "./clock.ts";
import { type Config, readConfig } from "./config.ts";
import { createDeps } from "./deps.ts";
import { createLog, faultCode } from "./log.ts";
import { nativeRedisTransport } from "./redis/native.ts";
import { upstashTransport } from "./redis/upstash.ts";
import { createPages } from "./page/pages.ts";
import type { RedisTransport } from "./redis/transport.ts";
import { serve } from "./server.ts";
import { memoryTicketStore } from "./store/memory.ts";
import { redisTicketStore } from "./store/redis.ts";
import { signToken } from "./token.ts";

/** Exit code for a configuration that can't be used (sysexits.h, EX_CONFIG). */
const EXIT_CONFIG = 78;
/** How long a demo token lives, in milliseconds. */
const DEMO_TOKEN_TTL_MS = 3_600_000;

const clock = systemClock;
const read = readConfig(process.env);
const log = createLog({
  level: read.ok ? read.config.logLevel : "error",
  clock,
  write: (line) => void process.stdout.write(line),
});
if (!read.ok) {
  for (const fault of read.faults) log("error", "config_fault", { ...fault });
  process.exit(EXIT_CONFIG);
}
const { config } = read;

process.on("uncaughtException", (error) => log("error", "uncaught", { code: faultCode(error) }));
process.on("unhandledRejection", (error) => log("error", "uncaught", { code: faultCode(error) }));

const demoSecret = crypto.getRandomValues(new Uint8Array(32));
const chat = openChat();
const deps = createDeps({
  ...config,
  keys: config.keys ?? { secret: demoSecret },
  sessionSecret: config.sessionSecret ?? crypto.getRandomValues(new Uint8Array(32)),
  store: config.redis ? redisTicketStore(transportOf(config.redis)) : memoryTicketStore({ clock }),
  chat,
  clock,
  log,
  signDemoToken: config.demo
    ? (user) =>
        signToken({ secret: demoSecret, user, expiresAtMs: clock.nowMs() + DEMO_TOKEN_TTL_MS })
    : undefined,
});
const handlers = createChat(chat, deps);
const server = start();
log("info", "listening", { url: server.url.href });
if (config.demo) {
  log("warn", "demo_mode", {
    url: server.url.href,
    note: "Nothing is configured: random secrets made at start, tickets and chat in memory, anybody on this machine signs in under any name. Not for production.",
  });
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.on(signal, async () => {
    log("info", "draining");
    await server.stop();
    log("info", "stopped");
    process.exit(0);
  });
}

function start(): ReturnType<typeof serve> {
  try {
    return serve({
      ...deps,
      hostname: config.host,
      port: config.port,
      handlers,
      pages: createPages(config),
      socketLimits: {
        maxPerIdentity: config.maxSocketsPerIdentity,
        messagesPerSecond: config.messagesPerSecond,
        maxMessageBytes: config.maxMessageBytes,
      },
    });
  } catch (error) {
    log("error", "listen_failed", { variable: "PORT", code: faultCode(error) });
    process.exit(1);
  }
}

function transportOf(settings: NonNullable<Config["redis"]>): RedisTransport {
  return settings.kind === "upstash" ? upstashTransport(settings) : nativeRedisTransport(settings);
}

function openChat(): ChatLog {
  const { retention } = config;
  if (config.redis) {
    return redisChatLog({
      transport: transportOf(config.redis),
      blocking: config.redis.kind === "native" ? transportOf(config.redis) : undefined,
      hasListeners: () => handlers.size > 0,
      ...{ clock, log, retention },
    });
  }
  try {
    return sqliteChatLog({ path: config.chatDatabase, clock, retention });
  } catch (error) {
    log("error", "config_fault", {
      variable: "CHAT_DATABASE",
      code: faultCode(error),
      note: "can't be used: locked, broken, not writable, somebody else's, or of a newer version",
    });
    process.exit(EXIT_CONFIG);
  }
}
