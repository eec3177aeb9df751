/** Spreads work that comes all at once. */
export interface Turns {
  /** Resolves at once for the first of a key, and for each further one a turn of the event loop later. */
  next(key: string): Promise<void> | undefined;
}

/** One piece of work of each key per turn of the event loop, so that others' work comes in between. */
export function createTurns(): Turns {
  /** Keys that have had this turn. */
  const served = new Set<string>();
  const waiting = new Map<string, (() => void)[]>();

  function turn(): void {
    served.clear();
    for (const [key, queue] of waiting) {
      queue.shift()?.();
      served.add(key);
      if (queue.length === 0) waiting.delete(key);
    }
    if (served.size > 0) setImmediate(turn);
  }

  return {
    next(key) {
      if (served.size === 0) setImmediate(turn);
      if (!served.has(key)) return void served.add(key);
      return new Promise((resolve) => {
        const queue = waiting.get(key);
        if (queue) queue.push(resolve);
        else waiting.set(key, [resolve]);
      });
    },
  };
}
