import type { Clock } from "./clock.ts";

/** A map that forgets by itself what was set long ago. */
export interface RecentMap<Key, Value> {
  get(key: Key): Value | undefined;
  set(key: Key, value: Value): void;
}

/**
 * Keeps entries for `keepMs` or longer, at the most twice as many as `atLeast`, and those of the last `atLeast` that
 * aren't older in any case. In two generations, the older one dropped as a whole: deleting keys one by one leaves
 * holes in a Map that every later walk steps over.
 */
export function createRecentMap<Key, Value>(options: {
  keepMs: number;
  atLeast: number;
  clock: Clock;
}): RecentMap<Key, Value> {
  const { keepMs, atLeast, clock } = options;
  let recent = new Map<Key, Value>();
  let older = new Map<Key, Value>();
  let turnedAtMs = clock.monotonicMs();

  return {
    get: (key) => recent.get(key) ?? older.get(key),
    set(key, value) {
      const nowMs = clock.monotonicMs();
      if (nowMs - turnedAtMs >= keepMs || recent.size >= atLeast) {
        older = recent;
        recent = new Map();
        turnedAtMs = nowMs;
      }
      recent.set(key, value);
    },
  };
}
