import type { Clock } from "./clock.ts";
import { DeadlineError } from "./deadline.ts";

/** Items that may wait at once; further ones are rejected. */
const MAX_WAITING = 20_000;

interface BatcherOptions<Item> {
  readonly clock: Clock;
  /** Longest time from adding an item to its result, in milliseconds; beyond it the item's promise rejects. */
  readonly deadlineMs: number;
  /**
   * Whose items stay in order: two of the same sender are never in progress in two batches. `undefined` for an
   * item on its own.
   */
  readonly senderOf: (item: Item) => string | undefined;
  /**
   * After a failure the sender's later items fail, too, for this long, in milliseconds: they were sent before
   * the failure was known, and would overtake the one that failed.
   */
  readonly failingMs: number;
  /** How much of `maxWeight` an item takes. Default 1. */
  readonly weigh?: (item: Item) => number;
  /** Of one batch. Default: no limit. */
  readonly maxWeight?: number;
  /** Batches in progress at once. Default 1. */
  readonly parallel?: number;
  /** Runs after each batch, once its promises have settled. */
  readonly afterwards?: () => void;
}

/** Collects items and commits them in batches. */
export interface Batcher<Item, Result> {
  add(item: Item): Promise<Result>;
  /** Resolves when nothing waits any more. */
  idle(): Promise<void>;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly sender: string | undefined;
  readonly endsAtMs: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
  isSettled: boolean;
}

/**
 * Collects what arrives in one turn of the event loop, and while earlier batches are in progress, and passes
 * it to `commit` together and in order. Each item's promise settles with its own result, or with the error
 * that stopped its batch.
 */
export function createBatcher<Item, Result>(
  commit: (items: readonly Item[]) => readonly Result[] | Promise<readonly Result[]>,
  options: BatcherOptions<Item>,
): Batcher<Item, Result> {
  const { clock, deadlineMs, senderOf, failingMs, weigh = () => 1, parallel = 1 } = options;
  const { maxWeight = Number.POSITIVE_INFINITY, afterwards } = options;
  let waiting: Waiting<Item, Result>[] = [];
  /** Everything from the last moments, oldest first; what has no result at its deadline is rejected. */
  let pending: Waiting<Item, Result>[] = [];
  let cancelDeadline: (() => void) | undefined;
  const sendersInProgress = new Set<string>();
  /** Until when a sender's items fail, by the monotonic clock. */
  const failing = new Map<string, number>();
  let isScheduled = false;
  let inProgress = 0;
  let onIdle: (() => void)[] = [];

  function start(): void {
    isScheduled = false;
    while (inProgress < parallel) {
      const batch = nextBatch();
      if (batch.length === 0) break;
      inProgress++;
      for (const { sender } of batch) if (sender !== undefined) sendersInProgress.add(sender);
      void run(batch);
    }
    if (inProgress > 0 || waiting.length > 0) return;
    for (const resolve of onIdle) resolve();
    onIdle = [];
  }

  async function run(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await commit(batch.map(({ item }) => item));
      for (const [at, one] of batch.entries()) {
        one.isSettled = true;
        one.resolve(results[at] as Result);
      }
      if (afterwards) queueMicrotask(afterwards);
    } catch (error) {
      for (const one of batch) fail(one, error);
    }
    for (const { sender } of batch) if (sender !== undefined) sendersInProgress.delete(sender);
    inProgress--;
    start();
  }

  /** Fails an item, whatever else its sender has waiting, and what comes from there in the next moments. */
  function fail(failed: Waiting<Item, Result>, error: unknown): void {
    const { sender } = failed;
    const nowMs = clock.monotonicMs();
    const isLater = (one: Waiting<Item, Result>) => sender !== undefined && one.sender === sender;
    for (const one of [failed, ...waiting.filter(isLater)]) {
      one.isSettled = true;
      one.reject(error);
    }
    waiting = waiting.filter((one) => one !== failed && !isLater(one));
    if (sender === undefined) return;
    for (const [key, untilMs] of failing) if (untilMs <= nowMs) failing.delete(key);
    failing.set(sender, nowMs + failingMs);
  }

  function isFailing(sender: string | undefined): boolean {
    if (sender === undefined || failing.size === 0) return false;
    return (failing.get(sender) ?? Number.NEGATIVE_INFINITY) > clock.monotonicMs();
  }

  /** The first items that fit into one batch, without those whose sender has one in progress. */
  function nextBatch(): readonly Waiting<Item, Result>[] {
    const batch: Waiting<Item, Result>[] = [];
    const left: Waiting<Item, Result>[] = [];
    let weight = 0;
    let isFull = false;
    for (const one of waiting) {
      const isHeldBack = isFull || (one.sender !== undefined && sendersInProgress.has(one.sender));
      if (!isHeldBack) {
        weight += weigh(one.item);
        isFull = batch.length > 0 && weight > maxWeight;
      }
      if (isHeldBack || isFull) left.push(one);
      else batch.push(one);
    }
    waiting = left;
    return batch;
  }

  /** One timer for all: deadlines come in the order in which items were added. */
  function watchDeadline(): void {
    const first = pending[0];
    if (cancelDeadline || !first) return;
    cancelDeadline = clock.after(first.endsAtMs - clock.monotonicMs(), () => {
      cancelDeadline = undefined;
      const nowMs = clock.monotonicMs();
      const due = pending.filter(({ endsAtMs }) => endsAtMs <= nowMs);
      pending = pending.slice(due.length);
      const error = new DeadlineError(`No result in time: ${deadlineMs} ms`);
      for (const one of due) if (!one.isSettled) fail(one, error);
      watchDeadline();
    });
  }

  return {
    add(item) {
      const sender = senderOf(item);
      if (waiting.length >= MAX_WAITING) {
        return Promise.reject(new Error("Too many items are waiting"));
      }
      if (isFailing(sender)) {
        return Promise.reject(new Error("An earlier item of this sender has failed"));
      }
      return new Promise<Result>((resolve, reject) => {
        const endsAtMs = clock.monotonicMs() + deadlineMs;
        const one = { item, sender, endsAtMs, resolve, reject, isSettled: false };
        waiting.push(one);
        pending.push(one);
        watchDeadline();
        if (isScheduled || inProgress >= parallel) return;
        isScheduled = true;
        setImmediate(start);
      });
    },
    idle() {
      if (waiting.length === 0 && inProgress === 0) return Promise.resolve();
      return new Promise((resolve) => onIdle.push(resolve));
    },
  };
}
