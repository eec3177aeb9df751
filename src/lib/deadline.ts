import type { Clock } from "./clock.ts";

/** Longest wait for a store or a key server, in milliseconds: short of the 2 s within which a caller gets its 503. */
export const DEPENDENCY_DEADLINE_MS = 1_900;

/** A dependency didn't respond in time. The request may still take effect. */
export class DeadlineError extends Error {
  override name = "DeadlineError";
}

/**
 * Settles like `work`, or rejects with a `DeadlineError` after `deadlineMs`. A later outcome of `work` is
 * ignored: it counts as unknown.
 */
export function withinDeadline<T>(work: Promise<T>, deadlineMs: number, clock: Clock): Promise<T> {
  return new Promise((resolve, reject) => {
    let isSettled = false;
    let cancel: (() => void) | undefined;
    const settle =
      <Value>(by: (value: Value) => void) =>
      (value: Value) => {
        isSettled = true;
        cancel?.();
        by(value);
      };
    work.then(settle<T>(resolve), settle(reject));
    // A store in this process has answered by then, and needs no timer.
    queueMicrotask(() => {
      if (isSettled) return;
      cancel = clock.after(deadlineMs, () =>
        reject(new DeadlineError(`No response in time: ${deadlineMs} ms`)),
      );
    });
  });
}
