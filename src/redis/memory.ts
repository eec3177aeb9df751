import type { Clock } from "../lib/clock.ts";
import { RedisError, type RedisTransport } from "./transport.ts";

/** Share of `maxmemory` above which bulk data isn't written any more: the rest is for what must keep working. */
const BULK_SHARE = 0.8;
/** How long one look at the memory is good for, in milliseconds. */
const FRESH_MS = 1_000;
/** How long a server that refuses to say is left alone, in milliseconds. */
const UNKNOWN_MS = 60_000;

/** Keeps bulk data from filling a Redis to its `maxmemory`. */
export interface MemoryGuard {
  /** `false` also where there is no limit, or the server doesn't say. */
  isNearlyFull(): Promise<boolean>;
}

export function createMemoryGuard(options: {
  transport: RedisTransport;
  clock: Clock;
}): MemoryGuard {
  const { transport, clock } = options;
  let nextLookMs = Number.NEGATIVE_INFINITY;
  let isFull: Promise<boolean>;

  async function look(): Promise<boolean> {
    try {
      const info = String(await transport.command(["INFO", "memory"]));
      const read = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)?.[1]);
      const most = read("maxmemory");
      return most > 0 && read("used_memory") > most * BULK_SHARE;
    } catch (error) {
      if (error instanceof RedisError) nextLookMs = clock.monotonicMs() + UNKNOWN_MS;
      return false;
    }
  }

  return {
    isNearlyFull() {
      const nowMs = clock.monotonicMs();
      if (nowMs >= nextLookMs) {
        nextLookMs = nowMs + FRESH_MS;
        isFull = look();
      }
      return isFull;
    },
  };
}
