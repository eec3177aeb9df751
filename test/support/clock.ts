import type { Clock } from "../../src/lib/clock.ts";

/** A clock that stands still until it is moved. */
export interface FakeClock extends Clock {
  /** Lets time pass: both clocks move, and what was due in between runs, in order. */
  advance(ms: number): void;
  /** Sets the wall clock alone, as an operator or NTP would. */
  jumpWall(ms: number): void;
  /** Timers that run now. */
  readonly timers: number;
}

export function fakeClock(startMs = Date.parse("2026-01-01T00:00:00Z")): FakeClock {
  let wallMs = startMs;
  let monotonicMs = 1_000;
  const timers = new Set<{ intervalMs: number; nextMs: number; run: () => void }>();
  return {
    nowMs: () => wallMs,
    monotonicMs: () => monotonicMs,
    every(intervalMs, run) {
      const timer = { intervalMs, nextMs: monotonicMs + intervalMs, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    advance(ms) {
      const endMs = monotonicMs + ms;
      for (;;) {
        const due = [...timers].filter(({ nextMs }) => nextMs <= endMs);
        const next = due.sort((a, b) => a.nextMs - b.nextMs)[0];
        if (!next) break;
        wallMs += next.nextMs - monotonicMs;
        monotonicMs = next.nextMs;
        next.nextMs += next.intervalMs;
        next.run();
      }
      wallMs += endMs - monotonicMs;
      monotonicMs = endMs;
    },
    jumpWall(ms) {
      wallMs += ms;
    },
    get timers() {
      return timers.size;
    },
  };
}
