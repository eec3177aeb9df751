import type { Clock } from "./clock.ts";
import { DeadlineError } from "./deadline.ts";
import { createRateLimit } from "./limit.ts";

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
  /** Everything since the oldest item that had no result when it was last looked at, in order. */
  let pending: Waiting<Item, Result>[] = [];
  let cancelDeadline: (() => void) | undefined;
  const sendersInProgress = new Set<string>();
  /** Senders whose items fail now: those that have to wait. */
  const failing = createRateLimit<string>({ allowed: 1, windowMs: failingMs, clock });
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
    pending = [];
    cancelDeadline?.();
    cancelDeadline = undefined;
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
      fail(batch, error);
    }
    for (const { sender } of batch) if (sender !== undefined) sendersInProgress.delete(sender);
    inProgress--;
    start();
  }

  /** Fails items, whatever else their senders have waiting, and what comes from there in the next moments. */
  function fail(items: readonly Waiting<Item, Result>[], error: unknown): void {
    const senders = new Set<string>();
    const end = (one: Waiting<Item, Result>) => {
      one.isSettled = true;
      one.reject(error);
    };
    for (const one of items) {
      end(one);
      if (one.sender !== undefined) senders.add(one.sender);
    }
    waiting = waiting.filter((one) => {
      if (one.sender !== undefined && senders.has(one.sender)) end(one);
      return !one.isSettled;
    });
    for (const sender of senders) failing.count(sender);
  }

  /** The first items that fit into one batch, without those whose sender has one in progress. */
  function nextBatch(): readonly Waiting<Item, Result>[] {
    const batch: Waiting<Item, Result>[] = [];
    const left: Waiting<Item, Result>[] = [];
    let weight = 0;
    for (const [at, one] of waiting.entries()) {
      if (one.sender !== undefined && sendersInProgress.has(one.sender)) {
        left.push(one);
        continue;
      }
      weight += weigh(one.item);
      if (batch.length > 0 && weight > maxWeight) {
        left.push(...waiting.slice(at));
        break;
      }
      batch.push(one);
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
      endOverdue();
      watchDeadline();
    });
  }

  /** Rejects what is due, and forgets what is settled. */
  function endOverdue(): void {
    const nowMs = clock.monotonicMs();
    const due = pending.filter(({ isSettled, endsAtMs }) => !isSettled && endsAtMs <= nowMs);
    fail(due, new DeadlineError(`No result in time: ${deadlineMs} ms`));
    pending = pending.filter(({ isSettled }) => !isSettled);
  }

  return {
    add(item) {
      const sender = senderOf(item);
      if (sender !== undefined && failing.waitMs(sender) > 0) {
        return Promise.reject(new Error("An earlier item of this sender has failed"));
      }
      if (waiting.length >= MAX_WAITING) {
        if (sender !== undefined) failing.count(sender);
        return Promise.reject(new Error("Too many items are waiting"));
      }
      return new Promise<Result>((resolve, reject) => {
        const endsAtMs = clock.monotonicMs() + deadlineMs;
        const one = { item, sender, endsAtMs, resolve, reject, isSettled: false };
        waiting.push(one);
        pending.push(one);
        watchDeadline();

        if (isScheduled) return;
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
