import { createChat } from "./chat/chat.ts";
import { readConfig } from "./config.ts";
import { createGate } from "./gate/gate.ts";
import { signToken } from "./gate/token.ts";
import { systemClock } from "./lib/clock.ts";
import { withinDeadline } from "./lib/deadline.ts";
import { createLineBuffer, createLog, faultCode } from "./lib/log.ts";
import { openStores, type SharedRedis } from "./open.ts";
import { createPages } from "./page/pages.ts";
import { createServerRoutes } from "./routes.ts";
import { serve } from "./sockets/serve.ts";

/** Exit code for a configuration that can't be used (sysexits.h, EX_CONFIG). */
const EXIT_CONFIG = 78;
/** Lifetime of a demo token, in milliseconds. */
const DEMO_TOKEN_TTL_MS = 3_600_000;
/** How long the goodbyes at a restart are spread over, so that clients don't all come back at once, in milliseconds. */
const DRAIN_SPREAD_MS = 3_000;
/** Longest time to close the store after the last socket, in milliseconds. */
const CLOSE_MS = 2_000;

const clock = systemClock;
const lines = createLineBuffer((text) => void process.stdout.write(text));
const read = readConfig(process.env);
const writeLog = createLog({
  level: read.ok ? read.config.logLevel : "error",
  clock,
  write: lines.add,
});
if (!read.ok) {
  for (const fault of read.faults) writeLog("error", "config_fault", { ...fault });
  exit(EXIT_CONFIG);
}
const { config } = read;
// Loaded only when they are served: they would double the time to start.
const metricsModule = config.metricsPort === undefined ? undefined : await loadMetrics();
const metrics = metricsModule?.createMetrics(clock);
const log = metrics?.observe(writeLog) ?? writeLog;

process.on("uncaughtException", (error) => log("error", "uncaught", { code: faultCode(error) }));
process.on("unhandledRejection", (error) => log("error", "uncaught", { code: faultCode(error) }));

const demoSecret = crypto.getRandomValues(new Uint8Array(32));
const { store, chat: history } = await open();
const { issuer, audience, userClaim, publicUrl, ticketTtlMs, ticketsPerMinute, trustProxy } =
  config;
const gate = createGate({
  users: { ...(config.keys ?? { secret: demoSecret }), issuer, audience, userClaim },
  visitors: { secret: config.sessionSecret ?? crypto.getRandomValues(new Uint8Array(32)) },
  store: metrics?.measure(store) ?? store,
  origins: config.allowedOrigins,
  ...{ publicUrl, ticketTtlMs, ticketsPerMinute, trustProxy, clock, log },
});
const chat = createChat(gate, history);
const fetch = createServerRoutes({
  gate,
  chat,
  pages: createPages(config),
  adminToken: config.adminToken,
  signDemoToken: config.demo ? signDemoToken : undefined,
  isStopping: () => server.isStopping,
});
const server = listen("PORT", () =>
  serve(gate, chat.handlers, {
    hostname: config.host,
    port: config.port,
    fetch,
    limits: {
      maxPerIdentity: config.maxSocketsPerIdentity,
      messagesPerSecond: config.messagesPerSecond,
      maxMessageBytes: config.maxMessageBytes,
    },
  }),
);
let stopping: Promise<void> | undefined;
for (const signal of ["SIGTERM", "SIGINT"] as const) {
  process.on(signal, () => (stopping ??= stop()));
}

log("info", "listening", { url: server.url.href });
if (metricsModule && metrics && config.metricsPort !== undefined) {
  const options = { hostname: config.host, port: config.metricsPort, metrics };
  const { url } = listen("METRICS_PORT", () => metricsModule.serveMetrics(options));
  log("info", "metrics_listening", { url: url.href });
}
if (config.demo) {
  log("warn", "demo_mode", {
    url: server.url.href,
    note: "Nothing is configured: random secrets, tickets and chat in memory, anybody on this machine can sign in under any name. Not for production.",
  });
}

async function stop(): Promise<void> {
  log("info", "draining");
  try {
    await server.stop({ spreadMs: DRAIN_SPREAD_MS });

    await withinDeadline(gate.close(), CLOSE_MS, clock);
    log("info", "stopped");
    exit(0);
  } catch (error) {
    log("error", "stop_failed", { code: faultCode(error) });
    exit(1);
  }
}

function exit(code: number): never {
  lines.flush();
  process.exit(code);
}

function signDemoToken(user: string): Promise<string> {
  const nowMs = clock.nowMs();
  const claims = { iat: Math.floor(nowMs / 1000), jti: crypto.randomUUID() };
  return signToken({ secret: demoSecret, user, expiresAtMs: nowMs + DEMO_TOKEN_TTL_MS, claims });
}

/** Ends the process when the address is taken, and logs which one. */
function listen<Server>(variable: string, start: () => Server): Server {
  try {
    return start();
  } catch (error) {
    log("error", "listen_failed", { variable, code: faultCode(error) });
    exit(1);
  }
}

/** Its package is optional: most who install this one never start it. */
async function loadMetrics(): Promise<typeof import("./metrics.ts")> {
  try {
    return await import("./metrics.ts");
  } catch (error) {
    const note = "needs the package prom-client, which isn't installed";
    writeLog("error", "config_fault", { variable: "METRICS_PORT", code: faultCode(error), note });
    exit(EXIT_CONFIG);
  }
}

async function open(): Promise<SharedRedis> {
  try {
    return await openStores(config, { clock, log });
  } catch (error) {
    log("error", "config_fault", {
      variable: config.redis ? "REDIS_URL" : "CHAT_DATABASE",
      code: faultCode(error),
      note: "can't be used: locked, damaged, not writable, another program's, or of a newer version",
    });
    exit(EXIT_CONFIG);
  }
}
