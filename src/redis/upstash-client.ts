import { Redis, type Requester, type UpstashResponse } from "@upstash/redis";
import type { RedisReply, RedisTransport } from "./transport.ts";
import { singleRequest, type UpstashSettings } from "./upstash.ts";

/** Redis through Upstash's own client, for servers, where its size doesn't matter. */
export function upstashClientTransport(settings: UpstashSettings): RedisTransport {
  const redis = new UpstashRedis(requesterOf(singleRequest(settings)));
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

function requesterOf(send: RedisTransport["command"]): Requester {
  return {
    async request<Result>({ body }: { body?: unknown }): Promise<UpstashResponse<Result>> {
      return { result: (await send(body as readonly string[])) as Result };
    },
  };
}
