/** The only source of time. Tests pass one that they move by hand. */
export interface Clock {
  /** Wall-clock time in milliseconds since the epoch: what JWTs, cookies and ticket records carry. */
  nowMs(): number;
  /** A clock that never jumps, in milliseconds: for lifetimes and limits inside this process. */
  monotonicMs(): number;
  /** Calls `run` every `intervalMs` until the returned function is called. Doesn't keep the process alive. */
  every(intervalMs: number, run: () => void): () => void;
  /** Calls `run` once, after `delayMs`, unless the returned function is called first. Keeps the process alive until then. */
  after(delayMs: number, run: () => void): () => void;
}

/** The machine's clock. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  every(intervalMs, run) {
    // A number in browsers and Deno, an object in Bun and Node.
    const timer: unknown = setInterval(run, intervalMs);
    (timer as { unref?: () => void }).unref?.();
    return () => clearInterval(timer as number);
  },
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs`, or as soon as `signal` aborts. */
export function pause(delayMs: number, clock: Clock, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      cancel();
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const cancel = clock.after(delayMs, end);
    signal?.addEventListener("abort", end);
  });
}
