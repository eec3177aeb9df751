import { expect, test } from "bun:test";
import { createRecentMap } from "../../src/lib/recent.ts";
import { fakeClock } from "../support/clock.ts";

test("what was set is there for as long as it has to be, and gone long after", () => {
  const clock = fakeClock();
  const map = createRecentMap<string, number>({ keepMs: 1_000, atLeast: 10, clock });
  map.set("a", 1);
  clock.advance(999);
  map.set("b", 2);
  for (const [passMs, expected] of [
    [1, [1, 2]],
    [998, [1, 2]],
    [1_000, [undefined, undefined]],
  ] as const) {
    clock.advance(passMs);
    map.set(`after ${passMs}`, 0);
    expect([map.get("a"), map.get("b")]).toEqual([...expected]);
  }
});

test("of many in a short time the newest are there, and at most twice as many as have to be", () => {
  const map = createRecentMap<number, number>({ keepMs: 1_000, atLeast: 10, clock: fakeClock() });
  for (let n = 0; n < 100; n++) {
    map.set(n, n);
    const known = Array.from({ length: n + 1 }, (_, one) => map.get(one) !== undefined);
    expect(known.slice(-10).every(Boolean)).toBe(true);
    expect(known.filter(Boolean).length).toBeLessThanOrEqual(20);
  }
});
