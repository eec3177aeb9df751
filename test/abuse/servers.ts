import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startInstance, type TestInstance } from "../support/process.ts";
import { startRedis } from "../support/redis.ts";
import { startUpstashBridge } from "../support/upstash.ts";

/** Where tickets and chats are. */
export const BACKENDS = ["memory and SQLite", "Redis", "Upstash"] as const;
export type Backend = (typeof BACKENDS)[number];

/** Open files of each process: few, so that they are worth something. */
export const OPEN_FILES = 1_024;
export const ADMIN_TOKEN = "an admin token of 32 bytes or more".replaceAll(" ", "-");

/** As shipped, behind a proxy that says who everybody is; `startInstance` would switch limits off. */
const ENVIRONMENT = {
  TRUST_PROXY: "1",
  ADMIN_TOKEN,
  TICKETS_PER_MINUTE: "60",
  MESSAGES_PER_SECOND: "20",
  MAX_SOCKETS_PER_IDENTITY: "20",
  CHARACTERS_PER_MINUTE: "40000",
};

/** Servers on one backend: one process, or two that share a Redis. */
export interface Servers extends AsyncDisposable {
  readonly origins: readonly string[];
}

export async function startServers(backend: Backend): Promise<Servers> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-abuse-"));
  const redis = backend === "memory and SQLite" ? undefined : await startRedis();
  const bridge = backend === "Upstash" && redis ? await startUpstashBridge(redis.url) : undefined;
  const environment: Record<string, string> = {
    ...ENVIRONMENT,
    ...(!redis && { CHAT_DATABASE: join(directory, "chat.sqlite") }),
    ...(redis && !bridge && { REDIS_URL: redis.url }),
    ...(bridge && { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token }),
  };
  const within = ["sh", "-c", `ulimit -n ${OPEN_FILES} && exec "$@"`, "sh"];
  const instances: TestInstance[] = await Promise.all(
    Array.from({ length: redis ? 2 : 1 }, () => startInstance(environment, { within })),
  );
  return {
    origins: instances.map(({ origin }) => origin),
    async [Symbol.asyncDispose]() {
      for (const instance of instances) await instance[Symbol.asyncDispose]();
      await bridge?.[Symbol.asyncDispose]();
      await redis?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
