import type { Clock } from "./clock.ts";
import { dependencyFault } from "./fault.ts";

/** How much is logged; `silent`: nothing. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";
export const LOG_LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error", "silent"];

/** Everything that is logged. */
export type LogEvent =
  // The process
  | "config_fault"
  | "demo_mode"
  | "draining"
  | "listen_failed"
  | "listening"
  | "metrics_listening"
  | "open_failed"
  | "open_waits"
  | "setting_warning"
  | "stop_failed"
  | "stopped"
  | "uncaught"
  // Requests and tickets
  | "refused"
  | "request_failed"
  | "revoked"
  | "session_issued"
  | "ticket_issued"
  | "ticket_refused"
  // Sockets
  | "client_gone"
  | "socket_closed"
  | "socket_ended"
  | "socket_failed"
  | "socket_opened"
  | "socket_refused"
  // Chat
  | "chat_failed"
  | "message_kept"
  // Dependencies
  | "feed_failed"
  | "feed_gap"
  | "keys_unavailable"
  | "store_failed";

/**
 * Everything a log line can say. A field that isn't in this list has no way into the log, so no token,
 * ticket, cookie, URL, header or message text does.
 */
export interface LogFields {
  /** A code out of a closed table: a refusal's, a close code, a fault's. */
  code?: string | number;
  /** What was wrong with a token, out of a closed table. */
  fault?: string;
  /** The id of a user. */
  user?: string;
  /** The id of a visitor. */
  visitor?: string;
  /** The first six characters of the ticket's hash: enough to trace a ticket, useless for redeeming it. */
  ticketTag?: string;
  /** Network address of the client. */
  peer?: string;
  /** How long it took. */
  durationMs?: number;
  /** Name of a setting. */
  variable?: string;
  /** Where this server listens. */
  url?: string;
  /** A fixed sentence; never anything that came from outside. */
  note?: string;
}

const FIELDS: readonly (keyof LogFields)[] = [
  "code",
  "fault",
  "user",
  "visitor",
  "ticketTag",
  "peer",
  "durationMs",
  "variable",
  "url",
  "note",
];

/** Writes one event. A function of your own may take its place. */
export type Log = (level: Exclude<LogLevel, "silent">, event: LogEvent, fields?: LogFields) => void;

/**
 * A log of one JSON object per line, in UTC, from `level` upwards. `write` gets each line with its line feed.
 *
 * @example
 * const log = createLog({
 *   level: "info",
 *   clock: systemClock,
 *   write: (line) => process.stdout.write(line),
 * });
 */
export function createLog(options: {
  level: LogLevel;
  clock: Clock;
  write: (line: string) => void;
}): Log {
  const { clock, write } = options;
  const threshold = LOG_LEVELS.indexOf(options.level);
  return (level, event, fields = {}) => {
    if (LOG_LEVELS.indexOf(level) < threshold) return;
    const line: Record<string, string | number> = {
      time: new Date(clock.nowMs()).toISOString(),
      level,
      event,
    };
    for (const field of FIELDS) {
      const value = fields[field];
      if (value !== undefined)
        line[field] = typeof value === "string" ? value.slice(0, 300) : value;
    }
    write(`${escapeLineBreaks(JSON.stringify(line))}\n`);
  };
}

/** Collects lines and writes them together: a write for each line would cost more than the admission it reports. */
export function createLineBuffer(write: (text: string) => void): {
  add(line: string): void;
  /** Writes what was collected, at once: before the process ends. */
  flush(): void;
} {
  let waiting = "";
  function flush(): void {
    const text = waiting;
    waiting = "";
    if (text !== "") write(text);
  }
  return {
    add(line) {
      if (waiting === "") setTimeout(flush);
      waiting += line;
    },
    flush,
  };
}

/** JSON leaves these unescaped, and some log readers treat them as line ends. */
function escapeLineBreaks(json: string): string {
  return json.replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * What the log may say about a caught error: what is wrong with the dependency, or else its code or class; never
 * its message (messages carry commands, keys and addresses).
 */
export function faultCode(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  for (const candidate of [code, name]) {
    if (typeof candidate === "string" && /^\w{1,60}$/.test(candidate)) {
      return dependencyFault(candidate) ?? candidate;
    }
  }
  return "unknown";
}
