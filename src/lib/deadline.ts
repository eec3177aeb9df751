/** Longest wait for a store or a key server, in milliseconds: short of the 2 s in which a caller has its 503. */
export const DEPENDENCY_DEADLINE_MS = 1_900;

/** The dependency didn't answer in time. What it was asked may still happen. */
export class DeadlineError extends Error {
  override name = "DeadlineError";
}

/**
 * Settles like `work`, or rejects with a `DeadlineError` after `deadlineMs`. Whatever `work` does later
 * is ignored: an outcome that came too late counts as unknown.
 */
export function withinDeadline<T>(work: Promise<T>, deadlineMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new DeadlineError(`No answer in time: ${deadlineMs} ms`)),
      deadlineMs,
    );
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
