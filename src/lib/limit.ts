import type { Clock } from "./clock.ts";

/** Keys remembered at once, about; beyond it the oldest half is forgotten. */
const MAX_KEYS = 100_000;

/** How much may happen per key. */
export interface RateLimit<Key> {
  /** Milliseconds until `key` may act again at this cost (default 1), at most the window or the debt; 0 when it may now. */
  waitMs(key: Key, cost?: number): number;
  /** Counts one act of `key`, or one that costs as much as several. */
  count(key: Key, cost?: number): void;
  /** `waitMs`, and when that is 0 also `count`. */
  take(key: Key, cost?: number): number;
  /** Keys remembered now; 0 when no key has to wait. */
  readonly size: number;
}

/**
 * Allows `allowed` acts in `windowMs`, all at once or spread out (the generic cell rate algorithm); 0 switches
 * it off. An act is allowed when its whole cost is left of its key's share; one that costs more than there is in
 * a share takes all of it.
 */
export function createRateLimit<Key>(options: {
  allowed: number;
  windowMs: number;
  clock: Clock;
  /**
   * How much of what was counted although nothing was left is made up for, in milliseconds. Default 0: it counts no
   * more than what was left.
   */
  debtMs?: number;
  maxKeys?: number;
}): RateLimit<Key> {
  const { allowed, windowMs, clock, debtMs = 0, maxKeys = MAX_KEYS } = options;
  const intervalMs = windowMs / allowed;
  const longestMs = windowMs + debtMs;
  const longestWaitMs = Math.max(windowMs, debtMs);
  // When each key's share will be whole again, at most `longestMs` from now. In two generations, the older one
  // dropped as a whole: deleting keys one by one leaves holes in a Map that every later walk steps over.
  let recent = new Map<Key, number>();
  let older = new Map<Key, number>();
  let turnedAtMs = clock.monotonicMs();

  function turn(nowMs: number): void {
    if (nowMs - turnedAtMs < longestMs && recent.size < maxKeys / 2) return;
    // After twice that even what is recent has come to its end.
    older = nowMs - turnedAtMs < 2 * longestMs ? recent : new Map();
    recent = new Map();
    turnedAtMs = nowMs;
  }

  /** How much of its share a key has used, as the time until that is whole again. */
  function usedMs(key: Key, nowMs: number): number {
    return Math.max(0, (recent.get(key) ?? older.get(key) ?? 0) - nowMs);
  }

  function waitFrom(usedMs: number, cost: number): number {
    const overMs = usedMs + Math.min(cost * intervalMs, windowMs) - windowMs;
    // Rounding is no reason to wait.
    return overMs <= 1e-6 ? 0 : Math.min(overMs, longestWaitMs);
  }

  function countFrom(key: Key, usedMs: number, cost: number, nowMs: number): void {
    turn(nowMs);
    recent.set(key, nowMs + Math.min(usedMs + cost * intervalMs, longestMs));
  }

  return {
    waitMs(key, cost = 1) {
      return allowed === 0 ? 0 : waitFrom(usedMs(key, clock.monotonicMs()), cost);
    },
    count(key, cost = 1) {
      if (allowed === 0) return;
      const nowMs = clock.monotonicMs();
      countFrom(key, usedMs(key, nowMs), cost, nowMs);
    },
    take(key, cost = 1) {
      if (allowed === 0) return 0;
      const nowMs = clock.monotonicMs();
      const used = usedMs(key, nowMs);
      const waitMs = waitFrom(used, cost);
      if (waitMs === 0) countFrom(key, used, cost, nowMs);
      return waitMs;
    },
    get size() {
      const isPast = clock.monotonicMs() - turnedAtMs >= 2 * longestMs;
      return isPast ? 0 : recent.size + older.size;
    },
  };
}
