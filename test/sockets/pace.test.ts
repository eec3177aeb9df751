import { describe, expect, test } from "bun:test";
import { maxOpenFiles } from "../../src/sockets/files.ts";
import { createPace, type Pace } from "../../src/sockets/pace.ts";
import { type FakeClock, fakeClock, settle } from "../support/clock.ts";

const ADDRESS = "203.0.113.7";

/** Lets so many responses to one address leave; counts those that have. */
async function leave(
  clock: FakeClock,
  count: number,
  hold: (address: string) => Promise<void>,
  address = ADDRESS,
) {
  const state = { left: 0 };
  for (let n = 0; n < count; n++) void hold(address).then(() => state.left++);
  await settle(1);
  expect(state.left + clock.delays).toBeGreaterThanOrEqual(count);
  return state;
}

describe("responses to one address", () => {
  test.each<[string, keyof Omit<Pace, "end">, number, number]>([
    ["refusals", "refusal", 200, 10],
    ["others", "read", 5_000, 1],
  ])("%s leave at once, and then one after the other", async (_, kind, atOnce, eachMs) => {
    const clock = fakeClock();
    const pace = createPace(clock);
    const first = await leave(clock, atOnce, pace[kind]);
    expect(first.left).toBe(atOnce);
    const further = await leave(clock, 10, pace[kind]);
    for (let n = 0; n < 10; n++) {
      expect(further.left).toBe(n);
      clock.advance(eachMs);
      await settle(1);
    }
    expect(further.left).toBe(10);
    // Neither what is limited apart from them waits, nor anybody else.
    const other = kind === "read" ? pace.refusal : pace.read;
    expect(await leave(clock, 1, other)).toEqual({ left: 1 });
    expect(await leave(clock, 1, pace[kind], "203.0.113.8")).toEqual({ left: 1 });
  });

  test("wait for no more than a second, also of somebody who goes on", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    await leave(clock, 200, pace.refusal);
    // Their turns alone would take two and a half.
    for (let n = 0; n < 20; n++) {
      const further = await leave(clock, 250, pace.refusal);
      clock.advance(1_000);
      await settle(1);
      expect(further.left).toBe(250);
    }
    // However many there were, the address has made up for them by then.
    clock.advance(2_010);
    expect(await leave(clock, 1, pace.refusal)).toEqual({ left: 1 });
  });

  test("don't wait when as many as may do so already", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    const most = Math.min(5_000, Math.floor(maxOpenFiles() / 4));
    await leave(clock, 200, pace.refusal);
    const waiting = await leave(clock, most + 5, pace.refusal);
    expect([waiting.left, clock.delays]).toEqual([5, most]);
  });

  test("leave when the server stops", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    await leave(clock, 200, pace.refusal);
    const waiting = await leave(clock, 10, pace.refusal);
    pace.end();
    await settle(1);
    expect([waiting.left, clock.delays]).toEqual([10, 0]);
    expect(await leave(clock, 1, pace.refusal)).toEqual({ left: 1 });
  });
});
