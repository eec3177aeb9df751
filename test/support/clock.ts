import type { Clock } from "../../src/lib/clock.ts";
import { createTestClock } from "../../src/testing.ts";

/** A clock that stands still until it is moved. */
export interface FakeClock extends Clock {
  /** Lets time pass: both clocks move, and what was due in between runs, in order. */
  advance(ms: number): void;
  /** Lets time pass in steps, with everything that happens meanwhile. */
  pass(ms: number, stepMs?: number): Promise<void>;
  /** Sets the wall clock alone, as an operator or NTP would. */
  jumpWall(ms: number): void;
  /** Intervals that run now. */
  readonly timers: number;
  /** Delays that run now. */
  readonly delays: number;
}

/** Lets everything happen that needs no time. */
export async function settle(turns = 8): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}

export function fakeClock(startMs?: number): FakeClock {
  const clock = createTestClock(startMs === undefined ? {} : { startMs });
  const { nowMs, monotonicMs, every, after, step, jumpWall } = clock;
  return {
    ...{ nowMs, monotonicMs, every, after, jumpWall },
    advance: step,
    async pass(ms, stepMs = 100) {
      for (let left = ms; left > 0; left -= stepMs) {
        await settle(2);
        step(Math.min(left, stepMs));
      }
      await settle();
    },
    get timers() {
      return clock.waiting.intervals;
    },
    get delays() {
      return clock.waiting.delays;
    },
  };
}

/** Waits for `work` while time passes, at most `limitMs` of it. */
export async function underClock<T>(
  clock: FakeClock,
  work: Promise<T>,
  { limitMs = 60_000, stepMs = 100 } = {},
): Promise<T> {
  let isDone = false;
  const done = () => {
    isDone = true;
  };
  work.then(done, done);
  // Real events, such as bytes on a socket, get their chance before any time passes.
  for (let turn = 0; turn < 20 && !isDone; turn++) await settle(1);
  for (let passedMs = 0; passedMs < limitMs && !isDone; passedMs += stepMs) {
    clock.advance(stepMs);
    await settle(4);
  }
  return work;
}
