import { createChat } from "./chat/hub.ts";
import type { ChatLog } from "./chat/history.ts";
import { sqliteChatLog } from "./chat/sqlite.ts";
import { systemClock } from "./lib/clock.ts";
import { readConfig } from "./config.ts";
import { createDeps } from "./gate/gate.ts";
import { createLog, faultCode } from "./lib/log.ts";
import { createPages } from "./page/pages.ts";
import { serve, serveMetrics } from "./sockets/serve.ts";
import { memoryTicketStore } from "./gate/memory.ts";
import type { TicketStore } from "./gate/store.ts";
import { signToken } from "./gate/token.ts";

/** Exit code for a configuration that can't be used (sysexits.h, EX_CONFIG). */
const EXIT_CONFIG = 78;
/** How long a demo token lives, in milliseconds. */
const DEMO_TOKEN_TTL_MS = 3_600_000;

/** Over how long clients are sent away at a restart, so that they don't all come back at once, in milliseconds. */
const DRAIN_SPREAD_MS = 3_000;

const clock = systemClock;
const read = readConfig(process.env);
const writeLog = createLog({
  level: read.ok ? read.config.logLevel : "error",
  clock,
  write: (line) => void process.stdout.write(line),
});
if (!read.ok) {
  for (const fault of read.faults) writeLog("error", "config_fault", { ...fault });
  process.exit(EXIT_CONFIG);
}
const { config } = read;
// Loaded only where it is wanted: it would make up half of the time to start.
const metrics =
  config.metricsPort === undefined
    ? undefined
    : (await import("./metrics.ts")).createMetrics(clock);
const log = metrics ? metrics.observe(writeLog) : writeLog;
const measured = metrics ? metrics.measure : (store: TicketStore) => store;

process.on("uncaughtException", (error) => log("error", "uncaught", { code: faultCode(error) }));
process.on("unhandledRejection", (error) => log("error", "uncaught", { code: faultCode(error) }));

const demoSecret = crypto.getRandomValues(new Uint8Array(32));
// Loaded only where it is used, like the metrics: nobody else waits for it.
const redis =
  config.redis &&
  (await (await import("./open.ts")).openRedis(config.redis, { ...config, clock, log }));
const chat = redis?.chat ?? openChat();
const deps = createDeps({
  ...config,
  keys: config.keys ?? { secret: demoSecret },
  sessionSecret: config.sessionSecret ?? crypto.getRandomValues(new Uint8Array(32)),
  store: measured(redis?.store ?? memoryTicketStore({ clock })),
  chat,
  feed: redis?.feed,
  clock,
  log,
  signDemoToken: config.demo ? signDemoToken : undefined,
});
const server = listen("PORT", () =>
  serve({
    ...deps,
    hostname: config.host,
    port: config.port,
    handlers: createChat(chat, deps),
    pages: createPages(config),
    socketLimits: {
      maxPerIdentity: config.maxSocketsPerIdentity,
      messagesPerSecond: config.messagesPerSecond,
      maxMessageBytes: config.maxMessageBytes,
    },
  }),
);
let draining: Promise<void> | undefined;
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.on(signal, () => (draining ??= drain()));
}

log("info", "listening", { url: server.url.href });
if (metrics && config.metricsPort !== undefined) {
  const { host: hostname, metricsPort: port } = config;
  const { url } = listen("METRICS_PORT", () =>
    serveMetrics({ hostname, port, read: metrics.read }),
  );
  log("info", "metrics_listening", { url: url.href });
}
if (config.demo) {
  log("warn", "demo_mode", {
    url: server.url.href,
    note: "Nothing is configured: random secrets made at start, tickets and chat in memory, anybody on this machine signs in under any name. Not for production.",
  });
}

async function drain(): Promise<void> {
  log("info", "draining");
  try {
    await server.stop({ spreadMs: DRAIN_SPREAD_MS });
    log("info", "stopped");
    process.exit(0);
  } catch (error) {
    log("error", "stop_failed", { code: faultCode(error) });
    process.exit(1);
  }
}

function signDemoToken(user: string): Promise<string> {
  const nowMs = clock.nowMs();
  const claims = { iat: Math.floor(nowMs / 1000), jti: crypto.randomUUID() };
  return signToken({ secret: demoSecret, user, expiresAtMs: nowMs + DEMO_TOKEN_TTL_MS, claims });
}

/** An address that is taken ends the process, with a line that says which. */
function listen<Server>(variable: string, start: () => Server): Server {
  try {
    return start();
  } catch (error) {
    log("error", "listen_failed", { variable, code: faultCode(error) });
    process.exit(1);
  }
}

function openChat(): ChatLog {
  const { retention } = config;
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
