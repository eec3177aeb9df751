import { describe, expect, spyOn, test } from "bun:test";
import { pause, systemClock } from "../../src/lib/clock.ts";
import { fakeClock, settle } from "../support/clock.ts";

describe("the machine's clock", () => {
  test("says the time since the epoch, and one that never jumps", () => {
    expect(Math.abs(systemClock.nowMs() - Date.now())).toBeLessThan(1_000);
    expect(Math.abs(systemClock.monotonicMs() - performance.now())).toBeLessThan(1_000);
  });

  test("calls once after a delay, and again and again at an interval, until it is cancelled", async () => {
    const calls: string[] = [];
    systemClock.after(1, () => void calls.push("cancelled"))();
    systemClock.after(1, () => void calls.push("once"));
    const beats = await new Promise<number>((resolve) => {
      let count = 0;
      const stop = systemClock.every(1, () => {
        if (++count < 3) return;
        stop();
        resolve(count);
      });
      // An interval alone wouldn't keep this process waiting.
      systemClock.after(5_000, () => resolve(count));
    });
    expect(beats).toBe(3);
    expect(calls).toEqual(["once"]);
  });

  test("keeps a process alive for a delay, and not for an interval", () => {
    const run = (call: string) => {
      const file = JSON.stringify(`${import.meta.dir}/../../src/lib/clock.ts`);
      const script = `import { systemClock } from ${file}; ${call}`;
      return Bun.spawnSync([process.execPath, "-e", script], { timeout: 10_000 }).stdout.toString();
    };
    expect(run('systemClock.after(1, () => console.log("once"))')).toBe("once\n");
    expect(run("systemClock.every(60_000, () => {})")).toBe("");
  });
});

describe("a pause", () => {
  /** What a pause came to, and what is left of it. */
  function begin(delayMs: number, signal?: AbortSignal) {
    const clock = fakeClock();
    const state = { clock, isOver: false };
    void pause(delayMs, clock, signal).then(() => {
      state.isOver = true;
    });
    return state;
  }

  test("is over after its time, and not before", async () => {
    const state = begin(1_000);
    state.clock.advance(999);
    await settle(1);
    expect(state.isOver).toBe(false);
    state.clock.advance(1);
    await settle(1);
    expect(state.isOver).toBe(true);
  });

  test("is over at once where its signal has aborted, and when it does; no timer is left", async () => {
    const early = begin(1_000, AbortSignal.abort());
    const abort = new AbortController();
    const late = begin(1_000, abort.signal);
    await settle(1);
    expect([early.isOver, early.clock.delays]).toEqual([true, 0]);
    expect([late.isOver, late.clock.delays]).toEqual([false, 1]);
    abort.abort();
    await settle(1);
    expect([late.isOver, late.clock.delays]).toEqual([true, 0]);
  });

  test("leaves no listener at its signal", async () => {
    const { signal } = new AbortController();
    using add = spyOn(signal, "addEventListener");
    using remove = spyOn(signal, "removeEventListener");
    const state = begin(1_000, signal);
    expect(add).toHaveBeenCalledTimes(1);
    expect(remove).not.toHaveBeenCalled();
    state.clock.advance(1_000);
    await settle(1);
    expect(remove.mock.calls.map(String)).toEqual(add.mock.calls.map(String));
  });
});
