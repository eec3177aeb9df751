import { describe, expect, test } from "bun:test";
import { maxOpenFiles } from "../../src/sockets/files.ts";
import { createPace, type Pace } from "../../src/sockets/pace.ts";
import { type FakeClock, fakeClock, settle } from "../support/clock.ts";

const ADDRESS = "203.0.113.7";

/** Lets so many responses to one address leave; counts those that have. */
async function leave(
  clock: FakeClock,
  count: number,
  hold: Pace["read"],
  address = ADDRESS,
  signal = new AbortController().signal,
) {
  const state = { left: 0, ending: 0 };
  for (let n = 0; n < count; n++) {
    void hold(address, signal).then((mayStay) => {
      state.left++;
      if (!mayStay) state.ending++;
    });
  }
  await settle(1);
  expect(state.left + clock.delays).toBeGreaterThanOrEqual(count);
  return state;
}

describe("responses to one address", () => {
  test.each<[string, keyof Omit<Pace, "end">, number, number]>([
    ["refusals", "refusal", 200, 10],
    ["others", "read", 700, 1],
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
    expect(await leave(clock, 1, other)).toEqual({ left: 1, ending: 0 });
    expect(await leave(clock, 1, pace[kind], "203.0.113.8")).toEqual({ left: 1, ending: 0 });
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
    expect(await leave(clock, 1, pace.refusal)).toEqual({ left: 1, ending: 0 });
  });

  test("don't wait when as many as may do so already, and their connections end", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    const most = Math.min(5_000, Math.floor(maxOpenFiles() / 4));
    // A quarter of them is one address's.
    const ofOne = Math.ceil(most / 4);
    for (const [address, waits] of [
      [ADDRESS, ofOne],
      ["203.0.113.8", ofOne],
      ["203.0.113.9", ofOne],
      ["203.0.113.10", most - 3 * ofOne],
    ] as const) {
      await leave(clock, 200, pace.refusal, address);
      const before = clock.delays;
      const waiting = await leave(clock, waits + 5, pace.refusal, address);
      expect([waiting, clock.delays - before]).toEqual([{ left: 5, ending: 5 }, waits]);
    }
    await leave(clock, 200, pace.refusal, "203.0.113.11");
    expect(await leave(clock, 1, pace.refusal, "203.0.113.11")).toEqual({ left: 1, ending: 1 });
    clock.advance(1_000);
    await settle(1);
    expect(clock.delays).toBe(0);
    const again = await leave(clock, 5, pace.refusal);
    expect([again, clock.delays]).toEqual([{ left: 0, ending: 0 }, 5]);
  });

  test("don't wait any longer once their request is aborted, and make room", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    await leave(clock, 200, pace.refusal);
    const most = Math.ceil(Math.min(5_000, Math.floor(maxOpenFiles() / 4)) / 4);
    const abort = new AbortController();
    const waiting = await leave(clock, most, pace.refusal, ADDRESS, abort.signal);
    abort.abort();
    await settle(1);
    expect([waiting.left, clock.delays]).toEqual([most, 0]);
    expect(await leave(clock, 1, pace.refusal, ADDRESS, abort.signal)).toMatchObject({ left: 1 });
    await leave(clock, 1, pace.refusal);
    expect(clock.delays).toBe(1);
  });

  test("leave when the server stops", async () => {
    const clock = fakeClock();
    const pace = createPace(clock);
    await leave(clock, 200, pace.refusal);
    const waiting = await leave(clock, 10, pace.refusal);
    pace.end();
    await settle(1);
    expect([waiting.left, clock.delays]).toEqual([10, 0]);
    expect(await leave(clock, 1, pace.refusal)).toEqual({ left: 1, ending: 0 });
  });
});
