import { Redis, type Requester, type UpstashResponse } from "@upstash/redis";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { AnswerError, fetchJson } from "../lib/fetch.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/** Longest answer that is read, in bytes: 200 chat messages of the largest kind, and some. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;

/**
 * Redis over Upstash's REST API: web standards only, for serverless runtimes. `url` and `token` are
 * Upstash's own. Rejects when there is no good reply within `deadlineMs`.
 */
export function upstashTransport(options: {
  url: string;
  token: string;
  deadlineMs?: number;
}): RedisTransport {
  const redis = new UpstashRedis(singleRequest(options));
  return {
    isOrdered: false,
    command: (args) => redis.exec<RedisReply>([...args] as [string, ...string[]]),
    close: async () => {},
  };
}

/** Replies stay what Redis sent; by default the client turns "123" into a number and "true" into a boolean. */
class UpstashRedis extends Redis {
  constructor(requester: Requester) {
    super(requester);
    this.opts = { automaticDeserialization: false };
  }
}

/**
 * The way to the server for Upstash's client. Its own repeats a command whose reply was lost, follows
 * redirects, reads without bound, and quotes commands in its errors.
 */
function singleRequest(options: { url: string; token: string; deadlineMs?: number }): Requester {
  const { url, token, deadlineMs = DEPENDENCY_DEADLINE_MS } = options;
  return {
    readYourWrites: false,
    async request<Result>({ body }: { body?: unknown }): Promise<UpstashResponse<Result>> {
      const answer = await fetchJson(url, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
        body: JSON.stringify(body),
        deadlineMs,
        maxBytes: MAX_ANSWER_BYTES,
      });
      const { result, error } = (answer.body ?? {}) as UpstashResponse<Result>;
      if (typeof error === "string") throw new RedisError(error);
      if (answer.status !== 200) throw new AnswerError(`status_${answer.status}`);
      if (result === undefined) throw new AnswerError("no_result");
      return { result };
    },
  };
}
