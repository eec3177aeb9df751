import { expect, spyOn, test } from "bun:test";
import { createTurns } from "../../src/lib/turns.ts";

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** What has had its turn so far. */
function watch(turns: ReturnType<typeof createTurns>, keys: string): string[] {
  const done: string[] = [];
  for (const key of keys) {
    const waiting = turns.next(key);
    if (waiting) void waiting.then(() => done.push(key));
    else done.push(key);
  }
  return done;
}

test("the first of each key goes at once, and one more of each with every turn", async () => {
  const turns = createTurns();
  const done = watch(turns, "aaabba");
  expect(done.join("")).toBe("ab");
  for (const expected of ["abab", "ababa", "ababaa"]) {
    await turn();
    expect(done.join("")).toBe(expected);
  }
});

test("once nobody waits, nothing is left to do", async () => {
  const turns = createTurns();
  watch(turns, "aab");
  for (let n = 0; n < 3; n++) await turn();
  using scheduled = spyOn(globalThis, "setImmediate");
  for (let n = 0; n < 3; n++) await turn();
  expect(scheduled).toHaveBeenCalledTimes(3);
});

test("who comes while others of the same key wait, waits behind them; afterwards nobody waits", async () => {
  const turns = createTurns();
  const first = watch(turns, "aa");
  await turn();
  expect(first.join("")).toBe("aa");
  const second = watch(turns, "ab");
  expect(second.join("")).toBe("b");
  await turn();
  expect(second.join("")).toBe("ba");
  await turn();
  await turn();
  expect(watch(turns, "ab").join("")).toBe("ab");
});
