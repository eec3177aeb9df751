/** The only source of time. Tests pass one that they move by hand. */
export interface Clock {
  /** Wall-clock time in milliseconds since the epoch: what JWTs, cookies and ticket records carry. */
  nowMs(): number;
  /** A clock that never jumps, in milliseconds: for lifetimes and limits inside this process. */
  monotonicMs(): number;
  /** Calls `run` every `intervalMs` until the returned function is called; keeps no process alive. */
  every(intervalMs: number, run: () => void): () => void;
}

/** The clock of the machine. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  every(intervalMs, run) {
    const timer = setInterval(run, intervalMs) as unknown as { unref?: () => void };
    timer.unref?.();
    return () => clearInterval(timer as unknown as ReturnType<typeof setInterval>);
  },
};
