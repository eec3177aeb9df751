import manifest from "../package.json" with { type: "json" };
import { createChat } from "./chat/chat.ts";
import { type Environment, readConfig } from "./config.ts";
import { createGate } from "./gate/gate.ts";
import { signToken } from "./gate/token.ts";
import { pause, systemClock } from "./lib/clock.ts";
import { withinDeadline } from "./lib/deadline.ts";
import { createLineBuffer, createLog, faultCode } from "./lib/log.ts";
import { openStores, type SharedRedis } from "./open.ts";
import { createPages } from "./page/pages.ts";
import { createServerRoutes } from "./routes.ts";
import { serve } from "./sockets/serve.ts";
import { removeAbandoned } from "./sockets/unix.ts";

/** Exit code for a configuration that can't be used (sysexits.h, EX_CONFIG). */
const EXIT_CONFIG = 78;
/** Exit code for a second SIGINT, as shells have it: 128 and the signal's number. */
const EXIT_INTERRUPTED = 130;
/** Lifetime of a demo token, in milliseconds. */
const DEMO_TOKEN_TTL_MS = 3_600_000;
/** How long the goodbyes at a restart are spread over, so that clients don't all come back at once, in milliseconds. */
const DRAIN_SPREAD_MS = 3_000;
/** How long after the start its warnings come, in milliseconds: the first requests don't wait for them. */
const WARN_AFTER_MS = 100;
/** Longest time to close the store after the last socket, in milliseconds. */
const CLOSE_MS = 2_000;

/** What keeps a file from being opened now, and may not later. */
const PASSING: ReadonlyMap<string, string> = new Map([
  ["disk_full", "The disk is full"],
  ["disk_failed", "The disk can't be written to: full, over a quota, or broken"],
  [
    "in_use",
    "Another process uses the file: each server needs a file of its own, or all of them one Redis",
  ],
]);

/**
 * Starts the server that the environment describes: logs to stdout, listens until a signal ends it. Ends the
 * process when it can't.
 */
export async function start(environment: Environment): Promise<void> {
  const clock = systemClock;
  // Not process.stdout, which takes a fifth of the time to start.
  const stdout = Bun.stdout.writer();
  const lines = createLineBuffer(async (text) => {
    try {
      stdout.write(text);
      await stdout.flush();
    } catch {
      // Nobody reads it any more, which is no reason to end.
    }
  });
  const read = readConfig(environment);
  const writeLog = createLog({
    level: read.ok ? read.config.logLevel : "error",
    clock,
    write: lines.add,
  });
  if (!read.ok) {
    for (const fault of read.faults) writeLog("error", "config_fault", { ...fault });
    const { nearMisses } = await import("./check/settings.ts");
    for (const { subject, found } of nearMisses(environment)) {
      writeLog("error", "setting_warning", { variable: subject, note: found });
    }
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
  const sessions = {
    secret: config.sessionSecret ?? crypto.getRandomValues(new Uint8Array(32)),
    previousSecret: config.previousSessionSecret,
  };
  const { store, chat: history } = await open();
  const { issuer, audience, userClaim, publicUrl, ticketTtlMs, ticketsPerMinute } = config;
  const { trustProxy, strictTransport } = config;
  const gate = createGate({
    users: { ...(config.keys ?? { secret: demoSecret }), issuer, audience, userClaim },
    visitors: { ...sessions, embedded: config.embedOrigins !== undefined },
    userSessions: sessions,
    store: metrics?.measure(store) ?? store,
    origins: config.allowedOrigins,
    publicUrl,
    ticketTtlMs,
    ticketsPerMinute,
    trustProxy,
    strictTransport,
    clock,
    log,
  });
  const { charactersPerMinute } = config;
  const chat = createChat(gate, history, { charactersPerMinute });
  const fetch = createServerRoutes({
    gate,
    chat,
    pages: createPages({ ...config, profileOf: chat.profiles.profile }),
    adminToken: config.adminToken,
    signDemoToken: config.demo ? signDemoToken : undefined,
    isStopping: () => isDraining || server.isStopping,
    // Not the one that is measured: a probe is no redemption.
    store,
  });
  const { unixSocket: unix } = config;
  if (unix !== undefined) await removeAbandoned(unix);
  const server = listen("HOST", unix === undefined ? "PORT" : "UNIX_SOCKET", () =>
    serve(gate, chat.handlers, {
      hostname: config.host,
      port: config.port,
      unix,
      fetch,
      limits: {
        maxPerIdentity: config.maxSocketsPerIdentity,
        messagesPerSecond: config.messagesPerSecond,
        maxMessageBytes: config.maxMessageBytes,
      },
    }),
  );
  let isDraining = false;
  let interrupts = 0;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (signal === "SIGINT" && ++interrupts > 1) hurry();
      if (!isDraining) void stop();
      isDraining = true;
    });
  }

  const { maxSockets } = server;
  log("info", "listening", { url: server.url.href, maxSockets });
  const { revocations: feed } = store;
  const feedLagMs = typeof feed === "object" ? () => feed.lagMs ?? 0 : undefined;
  metrics?.describe({ version: manifest.version, maxSockets, feedLagMs });
  if (metricsModule && metrics && config.metricsPort !== undefined) {
    const options = { hostname: config.metricsHost, port: config.metricsPort, metrics };
    const { url } = listen("METRICS_HOST", "METRICS_PORT", () =>
      metricsModule.serveMetrics(options),
    );
    log("info", "metrics_listening", { url: url.href });
  }
  if (config.demo) {
    log("warn", "demo_mode", {
      url: server.url.href,
      note: "Nothing is configured: random secrets, tickets and chat in memory, anybody on this machine can sign in under any name. Not for production.",
    });
  }

  clock.after(WARN_AFTER_MS, () => void warn());

  /** Its package is optional: most who install this one never start it. */
  async function loadMetrics(): Promise<typeof import("./metrics.ts")> {
    try {
      return await import("./metrics.ts");
    } catch (error) {
      const note = "needs the package prom-client, which isn't installed";
      const code = faultCode(error);
      writeLog("error", "config_fault", { variable: "METRICS_PORT", code, note });
      exit(EXIT_CONFIG);
    }
  }

  async function stop(): Promise<void> {
    log("info", "draining");
    try {
      // Meanwhile a proxy finds out that it has to send its requests elsewhere.
      await pause(config.drainDelayMs, clock);
      await server.stop({ spreadMs: DRAIN_SPREAD_MS });

      await withinDeadline(gate.close(), CLOSE_MS, clock);
      log("info", "stopped");
      lines.flush();
      // A pipe takes no more than its reader does.
      await withinDeadline((async () => stdout.end())(), CLOSE_MS, clock).catch(() => {});
      process.exit(0);
    } catch (error) {
      log("error", "stop_failed", { code: faultCode(error) });
      exit(1);
    }
  }

  /** Ends without saying goodbye to anybody: what was acknowledged is stored. */
  function hurry(): never {
    log("warn", "stopped", { code: "interrupted" });
    exit(EXIT_INTERRUPTED);
  }

  /** Logs what `ws-ticket check` would warn of. */
  async function warn(): Promise<void> {
    const { inspect } = await import("./check/inspect.ts");
    for (const report of await inspect(config, environment, { clock, isRunning: true })) {
      if (report.level === "ok") continue;
      const { subject: variable, note = "" } = report;
      log("warn", "setting_warning", { variable, note });
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

  /** Ends the process when the address can't be had, and logs which part of it. */
  function listen<Server>(host: string, port: string, start: () => Server): Server {
    try {
      return start();
    } catch (error) {
      const code = faultCode(error);
      log("error", "listen_failed", { variable: code === "EADDRNOTAVAIL" ? host : port, code });
      exit(1);
    }
  }

  async function open(): Promise<SharedRedis> {
    if (config.redis && config.redis.token === undefined) {
      const { unusableKind } = await import("./check/redis.ts");
      const unusable = await unusableKind(config.redis, { clock });
      if (unusable) {
        const note = `names ${unusable.found}. ${unusable.note}`;
        log("error", "config_fault", { variable: unusable.subject, note });
        exit(EXIT_CONFIG);
      }
    }
    try {
      return await openStores(config, { clock, log });
    } catch (error) {
      const variable = config.redis ? "REDIS_URL" : "CHAT_DATABASE";
      const code = faultCode(error);
      // No fault of the configuration: it may be better at the next try.
      const passing = PASSING.get(code);
      if (passing !== undefined) {
        log("error", "open_failed", { variable, code, note: passing });
        exit(1);
      }
      const note = "can't be used: damaged, not writable, another program's, or of a newer version";
      log("error", "config_fault", { variable, code, note });
      exit(EXIT_CONFIG);
    }
  }
}

if (import.meta.main) {
  const [argument] = process.argv.slice(2);
  if (argument !== undefined) {
    const isHelp = argument === "--help" || argument === "-h";
    (isHelp ? console.log : console.error)(
      "Takes no arguments: settings are environment variables. For commands: bun src/cli.ts --help",
    );
    process.exit(isHelp ? 0 : 2);
  }
  await start(process.env);
}
