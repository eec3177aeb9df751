/** Keys by when they expire, in buckets, so that no one ever walks through those that haven't. */
export interface ExpiryQueue {
  /** The key expires at `endsAtMs`, by any clock that `drop` uses, too. */
  add(key: string, endsAtMs: number): void;
  /** Calls `expired` for each key whose bucket has passed: late by one bucket at most, and never early. */
  drop(nowMs: number, expired: (key: string) => void): void;
  clear(): void;
}

export function createExpiryQueue(bucketMs: number): ExpiryQueue {
  const buckets = new Map<number, string[]>();
  /** The oldest bucket there may be. */
  let first = Number.POSITIVE_INFINITY;
  return {
    add(key, endsAtMs) {
      const at = Math.floor(endsAtMs / bucketMs);
      const bucket = buckets.get(at);
      if (bucket) bucket.push(key);
      else buckets.set(at, [key]);
      first = Math.min(first, at);
    },
    drop(nowMs, expired) {
      const end = Math.floor(nowMs / bucketMs);
      if (first >= end) return;
      // Across a long gap it is quicker to look at the buckets there are.
      const isGap = end - first > buckets.size;
      const due = isGap
        ? [...buckets.keys()].filter((at) => at < end).sort((a, b) => a - b)
        : range(first, end);
      for (const at of due) {
        const bucket = buckets.get(at);
        buckets.delete(at);
        for (const key of bucket ?? []) expired(key);
      }
      first = buckets.size === 0 ? Number.POSITIVE_INFINITY : end;
    },
    clear() {
      buckets.clear();
      first = Number.POSITIVE_INFINITY;
    },
  };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, at) => start + at);
}
