import type { Clock } from "./clock.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LEVELS)[number] | "silent";
export const LOG_LEVELS: readonly LogLevel[] = [...LEVELS, "silent"];

/**
 * Everything a log line can say. A field that isn't in this list has no way into the log, so no token,
 * ticket, cookie, URL, header or message text does.
 */
export interface LogFields {
  /** A code out of a closed table: a refusal's, a close code, a fault's. */
  code?: string | number;
  /** The id of a user. */
  user?: string;
  /** The id of a visitor. */
  visitor?: string;
  /** The first six characters of the ticket's hash: enough to follow one ticket, no use to redeem it. */
  ticketTag?: string;
  /** Network address of the other end. */
  peer?: string;
  durationMs?: number;
  /** Name of a setting. */
  variable?: string;
  /** Where this server listens. */
  url?: string;
  /** A sentence of this project's own; never anything that came from outside. */
  note?: string;
}

const FIELDS: readonly (keyof LogFields)[] = [
  "code",
  "user",
  "visitor",
  "ticketTag",
  "peer",
  "durationMs",
  "variable",
  "url",
  "note",
];

export type Log = (level: (typeof LEVELS)[number], event: string, fields?: LogFields) => void;

/** A log of one JSON object per line and event, in UTC, from `level` upwards. */
export function createLog(options: {
  level: LogLevel;
  clock: Clock;
  write: (line: string) => void;
}): Log {
  const { clock, write } = options;
  const threshold = LOG_LEVELS.indexOf(options.level);
  return (level, event, fields = {}) => {
    if (LEVELS.indexOf(level) < threshold) return;
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

/** JSON leaves these unescaped, and some log readers take them for the end of a line. */
function escapeLineBreaks(json: string): string {
  return json.replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * What may be said of a caught error: its code or class, never its message (messages carry commands, keys
 * and addresses).
 */
export function faultCode(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  for (const candidate of [code, name]) {
    if (typeof candidate === "string" && /^\w{1,60}$/.test(candidate)) return candidate;
  }
  return "unknown";
}
