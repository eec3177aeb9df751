import type { Clock } from "./clock.ts";

/** Keys remembered at once by one limit; beyond it the one that has been quiet longest is forgotten. */
const MAX_KEYS = 100_000;

/** How often something may happen per key. */
export interface RateLimit<Key> {
  /** Milliseconds until `key` may act again; 0 when it may now. */
  waitMs(key: Key): number;
  /** Counts one act of `key`. */
  count(key: Key): void;
  /** Drops what is known of `key`, which won't come again. */
  forget(key: Key): void;
  /** Keys that are remembered now. */
  readonly size: number;
}

/** `allowed` acts in `windowMs`, all at once or spread out (the generic cell rate algorithm); 0 switches it off. */
export function createRateLimit<Key>(options: {
  allowed: number;
  windowMs: number;
  clock: Clock;
}): RateLimit<Key> {
  const { allowed, windowMs, clock } = options;
  const intervalMs = windowMs / allowed;
  /** When the key's share will be whole again; the key touched longest ago stands first. */
  const wholeAtMs = new Map<Key, number>();

  return {
    waitMs(key) {
      if (allowed === 0) return 0;
      const usedMs = (wholeAtMs.get(key) ?? 0) - clock.monotonicMs();
      return Math.max(0, usedMs + intervalMs - windowMs);
    },
    count(key) {
      if (allowed === 0) return;
      const nowMs = clock.monotonicMs();
      const nextMs = Math.max(wholeAtMs.get(key) ?? 0, nowMs) + intervalMs;
      wholeAtMs.delete(key);
      for (const [oldest, whole] of wholeAtMs) {
        if (whole > nowMs && wholeAtMs.size < MAX_KEYS) break;
        wholeAtMs.delete(oldest);
      }
      wholeAtMs.set(key, nextMs);
    },
    forget: (key) => void wholeAtMs.delete(key),
    get size() {
      return wholeAtMs.size;
    },
  };
}
