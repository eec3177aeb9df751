import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Clock } from "./lib/clock.ts";
import type { Log } from "./lib/log.ts";
import { RESPONSE_HEADERS } from "./request/headers.ts";
import { refusalResponse, refuse } from "./request/refusal.ts";
import { CLOSE } from "./wire/close.ts";
import { readdirSync } from "node:fs";
import { maxOpenFiles } from "./sockets/files.ts";
import type { TicketStore } from "./gate/store.ts";

/** What an operator sees from outside: counts, and nothing that names a person. */
export interface Metrics {
  /** The same log, with its events counted. */
  observe(log: Log): Log;
  /** The same store, with its operations timed. */
  measure(store: TicketStore): TicketStore;
  /** Adds what is known once the server listens. */
  describe(facts: Facts): void;
  /** All metrics in Prometheus' text format. */
  read(): Promise<string>;
}

/** Codes that a peer can't make up at will (RFC 6455 section 7.4.1), and those of this server. */
const KNOWN_CLOSES = new Set<unknown>([
  1000,
  1001,
  1002,
  1005,
  1006,
  1007,
  ...Object.values(CLOSE).map(({ code }) => code),
]);

/** Values that are looked up when metrics are read. */
interface Facts {
  version: string;
  maxSockets: number;
  /** Left out where there is no feed. */
  feedLagMs: (() => number) | undefined;
}

export function createMetrics(clock: Clock): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const counter = (name: string, help: string, ...labelNames: string[]) =>
    new Counter({ name: `ws_ticket_${name}`, help, labelNames, registers });
  const gauge = (name: string, help: string) =>
    new Gauge({ name: `ws_ticket_${name}`, help, registers });
  /** A gauge that is looked up when metrics are read. */
  function watch(name: string, help: string, look: () => number): void {
    new Gauge({
      ...{ name, help, registers },
      collect() {
        this.set(look());
      },
    });
  }
  watchProcess(registers, watch, clock);
  const issued = counter("issued_total", "Tickets issued");
  const redeemed = counter("redeemed_total", "Tickets redeemed by a socket that opened");
  const help =
    "Requests and handshakes refused, by code, and bad tokens by what is wrong with them";
  const refused = counter("refused_total", help, "code", "fault");
  const closes = counter("closes_total", "Sockets closed, by code", "code");
  const messages = counter("messages_total", "Messages kept");
  const chatFailures = counter("chat_failures_total", "Failures of the chat's storage", "code");
  const feedFailures = counter("feed_failures_total", "Outages of the feed between processes");
  const feedGaps = counter("feed_gaps_total", "Times that entries of the feed were missed");
  const keyFailures = counter("jwks_failures_total", "Failures to read the issuer's key set");
  const keysRead = gauge("jwks_read_timestamp_seconds", "When the issuer's key set was last read");
  const sockets = new Gauge({
    name: "ws_ticket_sockets",
    help: "Sockets open now, by kind of identity",
    labelNames: ["kind"],
    registers,
  });
  for (const kind of ["user", "visitor"]) sockets.set({ kind }, 0);
  const store = new Histogram({
    name: "ws_ticket_store_seconds",
    help: "Duration of ticket store operations, by operation and outcome",
    labelNames: ["operation", "outcome"],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2],
    registers,
  });

  function count(event: string, fields: Parameters<Log>[2] = {}): void {
    const kind = fields.user === undefined ? "visitor" : "user";
    const code = String(fields.code);
    if (event === "ticket_issued") issued.inc();
    else if (event === "message_kept") messages.inc();
    else if (event === "chat_failed") chatFailures.inc({ code });
    else if (event === "feed_failed") feedFailures.inc();
    else if (event === "feed_gap") feedGaps.inc();
    else if (event === "keys_unavailable") keyFailures.inc();
    else if (event === "keys_read") keysRead.set(clock.nowMs() / 1000);
    else if (event === "refused" || event === "socket_refused") {
      refused.inc({ code, ...(fields.fault && { fault: fields.fault }) });
    } else if (event === "socket_opened") {
      sockets.inc({ kind });
      if (fields.ticketTag) redeemed.inc();
    } else if (event === "socket_closed") {
      sockets.dec({ kind });
      closes.inc({ code: KNOWN_CLOSES.has(fields.code) ? code : "other" });
    }
  }

  return {
    observe: (log) => (level, event, fields) => {
      count(event, fields);
      log(level, event, fields);
    },
    measure(inner) {
      function timed<T>(operation: string, work: Promise<T>): Promise<T> {
        const startedAtMs = clock.monotonicMs();
        const note = (outcome: string) =>
          store.observe({ operation, outcome }, (clock.monotonicMs() - startedAtMs) / 1000);
        work.then(
          () => note("ok"),
          () => note("failed"),
        );
        return work;
      }
      return {
        ...inner,
        put: (...args) => timed("put", inner.put(...args)),
        take: (...args) => timed("take", inner.take(...args)),
        revoke: (...args) => timed("revoke", inner.revoke(...args)),
      };
    },
    describe({ version, maxSockets, feedLagMs }) {
      const { bun = "" } = process.versions;
      const help = "What runs: always 1";
      const labelNames = ["version", "bun"];
      new Gauge({ name: "ws_ticket_info", help, labelNames, registers }).set({ version, bun }, 1);
      gauge("max_sockets", "Sockets that may be open at once").set(maxSockets);
      if (!feedLagMs) return;
      watch("ws_ticket_feed_lag_seconds", "Time since the feed was read to its end", () => {
        return feedLagMs() / 1000;
      });
    },
    read: () => registry.metrics(),
  };
}

/** What Prometheus' own clients say of a process, under the same names. Those of prom-client are Node's. */
function watchProcess(
  registers: Registry[],
  watch: (name: string, help: string, look: () => number) => void,
  clock: Clock,
): void {
  const startedAtSeconds = clock.nowMs() / 1000 - process.uptime();
  watch("process_start_time_seconds", "Start of the process", () => startedAtSeconds);
  new Counter({
    ...{ name: "process_cpu_seconds_total", help: "Time on a processor", registers },
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  watch("process_resident_memory_bytes", "Memory in use", () => process.memoryUsage.rss());
  watch("process_max_fds", "Files that may be open", maxOpenFiles);
  watch("process_open_fds", "Files open now, connections included", countOpenFiles);
}

function countOpenFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return Number.NaN;
  }
}

/** Serves the metrics under `/metrics`, and nothing else, on a port of their own. */
export function serveMetrics(options: {
  hostname: string;
  port: number;
  metrics: Metrics;
}): Bun.Server<undefined> {
  const { hostname, port, metrics } = options;
  const headers = { ...RESPONSE_HEADERS, "Content-Type": "text/plain; version=0.0.4" };
  return Bun.serve({
    hostname,
    port,
    reusePort: false,
    development: false,
    routes: { "/metrics": { GET: async () => new Response(await metrics.read(), { headers }) } },
    fetch: () => refusalResponse(refuse("not_found")),
    error: () => refusalResponse(refuse("internal_error")),
  });
}
