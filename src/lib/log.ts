import type { Clock } from "./clock.ts";
import { dependencyFault } from "./fault.ts";
import { createRateLimit } from "./limit.ts";
import { toTimestamp } from "./text.ts";

/** How much is logged; `silent`: nothing. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";
export const LOG_LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error", "silent"];

/** Everything that is logged. */
export type LogEvent =
  // The process
  | "config_fault"
  | "demo_mode"
  | "draining"
  | "files_exhausted"
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
  | "keys_read"
  | "keys_unavailable"
  | "store_failed";

/** What anybody can cause as often as requests can be sent. */
const REFUSALS: ReadonlySet<LogEvent> = new Set(["refused", "socket_refused", "ticket_refused"]);
/** Lines of each of them per address and minute, and for all addresses together; further ones are counted only. */
const LINES_PER_ADDRESS = 120;
const LINES_PER_EVENT = 1_200;

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
  /** Refusals that were left out of the log before this line, since there were too many. */
  skipped?: number;
  /** Name of a setting. */
  variable?: string;
  /** Where this server listens. */
  url?: string;
  /** Sockets that may be open at once. */
  maxSockets?: number;
  /** The origin of a page that was refused although it seems to be the server's own. */
  origin?: string;
  /** The origin that is accepted in its place. */
  expected?: string;
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
  "skipped",
  "variable",
  "url",
  "maxSockets",
  "origin",
  "expected",
  "note",
];

/** How long lines are collected before they are written together, in milliseconds. */
const FLUSH_MS = 10;
/** Longest value of a field, in UTF-16 code units. */
const MAX_FIELD_LENGTH = 300;

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
  const perMinute = (allowed: number) =>
    createRateLimit<string>({ allowed, windowMs: 60_000, clock });
  const byAddress = perMinute(LINES_PER_ADDRESS);
  const byEvent = perMinute(LINES_PER_EVENT);
  let skipped = 0;

  /** Whether one more refusal may be written: a client that is refused all day must not fill the disk. */
  function mayWrite(event: LogEvent, { peer = "" }: LogFields): boolean {
    const address = `${event} ${peer}`;
    const isTooMuch = byAddress.waitMs(address) > 0 || byEvent.take(event) > 0;
    if (isTooMuch) skipped++;
    else byAddress.count(address);
    return !isTooMuch;
  }

  return (level, event, given = {}) => {
    if (LOG_LEVELS.indexOf(level) < threshold) return;
    let fields = given;
    if (REFUSALS.has(event)) {
      if (!mayWrite(event, given)) return;
      if (skipped > 0) fields = { ...given, skipped };
      skipped = 0;
    }
    // By hand: of an admission, an object for each line would take a tenth.
    let line = `{"time":"${toTimestamp(clock.nowMs())}","level":"${level}","event":"${event}"`;
    for (const field of FIELDS) {
      const value = fields[field];
      if (value === undefined) continue;
      const short = typeof value === "string" ? value.slice(0, MAX_FIELD_LENGTH) : value;
      line += `,"${field}":${JSON.stringify(short)}`;
    }
    write(`${escapeLineBreaks(line)}}\n`);
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
      if (waiting === "") setTimeout(flush, FLUSH_MS);
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
