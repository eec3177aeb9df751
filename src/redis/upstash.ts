import { Redis, type Requester, type UpstashResponse } from "@upstash/redis";
import { type Clock, systemClock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson, ResponseError } from "../lib/fetch.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/** Longest response that is read, in bytes: 200 chat messages of the largest kind, and some. */
const MAX_RESPONSE_BYTES = 8 * 1024 * 1024;

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
  const redis = new UpstashRedis(singleRequest(options));
  return {
    isOrdered: false,
    command: (args) => redis.exec<RedisReply>([...args] as [string, ...string[]]),
    close: async () => {},
  };
}

/** Keeps replies as Redis sent them; by default the client turns "123" into a number and "true" into a boolean. */
class UpstashRedis extends Redis {
  constructor(requester: Requester) {
    super(requester);
    this.opts = { automaticDeserialization: false };
  }
}

/**
 * Sends each command of Upstash's client in exactly one request. Its own requester repeats a command whose
 * reply was lost, follows redirects, reads without bound, and quotes commands in its errors.
 */
function singleRequest(options: {
  url: string;
  token: string;
  deadlineMs?: number;
  clock?: Clock;
}): Requester {
  const { url, token, deadlineMs = DEPENDENCY_DEADLINE_MS, clock = systemClock } = options;
  return {
    readYourWrites: false,
    async request<Result>({ body }: { body?: unknown }): Promise<UpstashResponse<Result>> {
      const response = await fetchJson(url, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
        body: JSON.stringify(body),
        deadlineMs,
        maxBytes: MAX_RESPONSE_BYTES,
        clock,
      });
      const { result, error } = (response.body ?? {}) as UpstashResponse<Result>;
      if (typeof error === "string") throw new RedisError(error);
      if (response.status !== 200) throw new ResponseError(`status_${response.status}`);
      if (result === undefined) throw new ResponseError("no_result");
      return { result };
    },
  };
}
