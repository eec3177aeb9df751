import type { Clock } from "../../src/lib/clock.ts";

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

export function fakeClock(startMs = Date.parse("2026-01-01T00:00:00Z")): FakeClock {
  let wallMs = startMs;
  let monotonicMs = 1_000;
  const timers = new Set<{ intervalMs?: number; nextMs: number; run: () => void }>();
  const isInterval = ({ intervalMs }: { intervalMs?: number }) => intervalMs !== undefined;

  function advance(ms: number): void {
    const endMs = monotonicMs + ms;
    for (;;) {
      const due = [...timers].filter(({ nextMs }) => nextMs <= endMs);
      const next = due.sort((a, b) => a.nextMs - b.nextMs)[0];
      if (!next) break;
      wallMs += next.nextMs - monotonicMs;
      monotonicMs = next.nextMs;
      if (next.intervalMs === undefined) timers.delete(next);
      else next.nextMs += next.intervalMs;
      next.run();
    }
    wallMs += endMs - monotonicMs;
    monotonicMs = endMs;
  }

  return {
    nowMs: () => wallMs,
    monotonicMs: () => monotonicMs,
    every(intervalMs, run) {
      const timer = { intervalMs, nextMs: monotonicMs + intervalMs, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    after(delayMs, run) {
      const timer = { nextMs: monotonicMs + delayMs, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance,
    async pass(ms, stepMs = 100) {
      for (let left = ms; left > 0; left -= stepMs) {
        await settle(2);
        advance(Math.min(left, stepMs));
      }
      await settle();
    },
    jumpWall(ms) {
      wallMs += ms;
    },
    get timers() {
      return [...timers].filter(isInterval).length;
    },
    get delays() {
      return [...timers].filter((timer) => !isInterval(timer)).length;
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
