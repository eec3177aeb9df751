import { expect, test } from "bun:test";
import { createCounts } from "../../src/lib/counts.ts";

test("each key has as many as were added and not taken away, and none at first", () => {
  const counts = createCounts<string>();
  expect(counts.of("a")).toBe(0);
  expect([counts.add("a", 1), counts.of("a"), counts.of("b")]).toEqual([1, 1, 0]);
  expect([counts.add("a", 1), counts.add("b", 1), counts.add("a", -1)]).toEqual([2, 1, 1]);
  expect([counts.add("a", -1), counts.of("a"), counts.of("b")]).toEqual([0, 0, 1]);
});
