import { type Clock, systemClock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson, ResponseError } from "../lib/fetch.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/** Longest response that is read, in bytes: 200 chat messages of the largest kind, and some. */
const MAX_RESPONSE_BYTES = 8 * 1024 * 1024;

/** Where an Upstash database is: `url` and `token` are Upstash's own. */
export interface UpstashSettings {
  readonly url: string;
  readonly token: string;
  readonly deadlineMs?: number;
  readonly clock?: Clock;
}

/**
 * Redis over Upstash's REST API: web standards only, for serverless runtimes. `url` and `token` are
 * Upstash's own. Rejects when there is no good reply within `deadlineMs` (default 1,900).
 *
 * @example
 * const store = redisTicketStore(upstashTransport({ url, token }));
 */
export function upstashTransport(options: {
  url: string;
  token: string;
  deadlineMs?: number;
  clock?: Clock;
}): RedisTransport {
  // Not through Upstash's client: of its 80 KB this is what a command comes to, and a function pays for each at its start.
  return { isOrdered: false, command: singleRequest(options), close: async () => {} };
}

/**
 * Sends each command in exactly one request, as Upstash's client does first of all: its own requester repeats
 * a command whose reply was lost, follows redirects, reads without bound, and quotes commands in its errors.
 */
export function singleRequest(options: UpstashSettings): RedisTransport["command"] {
  const { url, token, deadlineMs = DEPENDENCY_DEADLINE_MS, clock = systemClock } = options;
  return async (args) => {
    const response = await fetchJson(url, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify(args),
      deadlineMs,
      maxBytes: MAX_RESPONSE_BYTES,
      clock,
    });
    const { result, error } = (response.body ?? {}) as { result?: RedisReply; error?: unknown };
    if (typeof error === "string") throw new RedisError(error);
    if (response.status !== 200) throw new ResponseError(`status_${response.status}`);
    if (result === undefined) throw new ResponseError("no_result");
    return result;
  };
}
