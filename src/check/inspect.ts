import type { Config, Environment } from "../config.ts";
import type { Clock } from "../lib/clock.ts";
import { inspectAddress } from "./address.ts";
import { inspectFile } from "./file.ts";
import { inspectKeys, inspectPublicKeys } from "./keys.ts";
import { inspectRedis } from "./redis.ts";
import type { Report } from "./report.ts";
import { inspectSettings } from "./settings.ts";
import { inspectUnixSocket } from "./unix.ts";

/**
 * Looks at everything that a configuration names. `isRunning`: by the server itself, which needs no more than what
 * it can't find out otherwise.
 */
export async function inspect(
  config: Config,
  environment: Environment,
  { clock, isRunning }: { clock: Clock; isRunning: boolean },
): Promise<Report[]> {
  const { demo, redis, keys, publicUrl, chatDatabase, unixSocket } = config;
  const isInMemory = demo && chatDatabase === ":memory:";
  const reports = await Promise.all([
    inspectSettings(config, environment),
    redis && inspectRedis(redis, { clock, triesAll: !isRunning }),
    !redis && !isInMemory && inspectFile(chatDatabase, { isOwn: isRunning }),
    keys && "jwksUrl" in keys && inspectKeys(keys.jwksUrl, { clock }),
    keys && "publicKeys" in keys && inspectPublicKeys(keys.publicKeys),
    unixSocket !== undefined && !isRunning && inspectUnixSocket(unixSocket),
    publicUrl && !isRunning && inspectAddress(publicUrl, { clock }),
  ]);
  return reports.flatMap((some) => some || []);
}
