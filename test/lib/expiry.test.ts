import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createExpiryQueue } from "../../src/lib/expiry.ts";

const BUCKET_MS = 1_000;

function queueOf(...ends: (readonly [key: string, endsAtMs: number])[]) {
  const queue = createExpiryQueue(BUCKET_MS);
  for (const [key, endsAtMs] of ends) queue.add(key, endsAtMs);
  return {
    ...queue,
    /** The keys that are reported as expired at this time. */
    expiredAt(nowMs: number): string[] {
      const expired: string[] = [];
      queue.drop(nowMs, (key) => expired.push(key));
      return expired;
    },
  };
}

describe("createExpiryQueue", () => {
  test("reports a key once its bucket has passed, and only then", () => {
    const queue = queueOf(["a", 5_000], ["b", 5_999], ["c", 6_000]);
    expect(queue.expiredAt(5_999)).toEqual([]);
    expect(queue.expiredAt(6_000)).toEqual(["a", "b"]);
    expect(queue.expiredAt(6_999)).toEqual([]);
    expect(queue.expiredAt(7_000)).toEqual(["c"]);
  });

  test("reports each of them once", () => {
    const queue = queueOf(["a", 1_000]);
    expect(queue.expiredAt(10_000)).toEqual(["a"]);
    expect(queue.expiredAt(20_000)).toEqual([]);
  });

  test("reports a key that was added twice for both of its ends", () => {
    const queue = queueOf(["a", 1_000], ["a", 5_000], ["a", 5_000]);
    expect(queue.expiredAt(2_000)).toEqual(["a"]);
    expect(queue.expiredAt(6_000)).toEqual(["a", "a"]);
  });

  test("takes keys in any order, and reports the earlier bucket first", () => {
    const queue = queueOf(["late", 9_000], ["early", 1_000], ["middle", 5_000]);
    expect(queue.expiredAt(60_000)).toEqual(["early", "middle", "late"]);
  });

  test("reports several buckets in a row at once, and leaves none behind", () => {
    const ends = Array.from({ length: 20 }, (_, at) => [`${at}`, at * 1_000] as const);
    const queue = queueOf(...ends);
    expect(queue.expiredAt(19_000)).toEqual(ends.slice(0, 19).map(([key]) => key));
    expect(queue.expiredAt(20_000)).toEqual(["19"]);
  });

  test("takes a key whose end has passed already", () => {
    const queue = queueOf(["a", 9_000]);
    expect(queue.expiredAt(8_000)).toEqual([]);
    queue.add("overdue", 2_000);
    expect(queue.expiredAt(8_000)).toEqual(["overdue"]);
    expect(queue.expiredAt(10_000)).toEqual(["a"]);
  });

  test("goes on after it was empty, earlier or later than before", () => {
    const queue = queueOf(["a", 50_000]);
    expect(queue.expiredAt(60_000)).toEqual(["a"]);
    queue.add("earlier", 3_000);
    queue.add("later", 90_000);
    expect(queue.expiredAt(60_000)).toEqual(["earlier"]);
    expect(queue.expiredAt(91_000)).toEqual(["later"]);
  });

  test("has nothing after clear", () => {
    const queue = queueOf(["a", 1_000], ["b", 2_000]);
    queue.clear();
    expect(queue.expiredAt(60_000)).toEqual([]);
    queue.add("c", 1_000);
    expect(queue.expiredAt(60_000)).toEqual(["c"]);
  });

  test("takes no time over the ten years of hours between two keys", () => {
    const endMs = 10 * 366 * 24 * BUCKET_MS;
    const queue = queueOf(["a", 0], ["b", endMs]);
    const startedAtMs = performance.now();
    expect(queue.expiredAt(endMs)).toEqual(["a"]);
    expect(queue.expiredAt(endMs + BUCKET_MS)).toEqual(["b"]);
    expect(performance.now() - startedAtMs).toBeLessThan(100);
  });

  test("may be added to while it reports", () => {
    const queue = createExpiryQueue(BUCKET_MS);
    queue.add("a", 1_000);
    const expired: string[] = [];
    queue.drop(5_000, (key) => {
      expired.push(key);
      if (key === "a") queue.add("b", 9_000);
    });
    expect(expired).toEqual(["a"]);
    queue.drop(10_000, (key) => expired.push(key));
    expect(expired).toEqual(["a", "b"]);
  });

  test("reports every key, never early and late by one bucket at most, whatever comes in whatever order", () => {
    const step = fc.oneof(
      fc.record({ lifeMs: fc.integer({ min: 0, max: 20_000 }) }),
      fc.record({ waitMs: fc.integer({ min: 0, max: 8_000 }) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.array(step), (startMs, steps) => {
        const queue = createExpiryQueue(BUCKET_MS);
        const pending = new Map<string, number>();
        let nowMs = startMs;
        for (const [at, one] of steps.entries()) {
          if ("lifeMs" in one) {
            queue.add(String(at), nowMs + one.lifeMs);
            pending.set(String(at), nowMs + one.lifeMs);
            continue;
          }
          nowMs += one.waitMs;
          queue.drop(nowMs, (key) => {
            expect(pending.get(key)).toBeLessThanOrEqual(nowMs);
            expect(pending.delete(key)).toBe(true);
          });
          for (const endsAtMs of pending.values()) {
            expect(endsAtMs).toBeGreaterThan(nowMs - BUCKET_MS);
          }
        }
      }),
    );
  });
});
