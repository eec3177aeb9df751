/** Items that may wait at once; further ones are rejected. */
const MAX_WAITING = 20_000;

interface BatcherOptions<Item> {
  /** How much of `maxWeight` an item takes; default 1. */
  weigh?: (item: Item) => number;
  /** Of one batch; default no limit. */
  maxWeight?: number;
  /** Batches in progress at once; default 1. */
  parallel?: number;
  /** Runs after each batch, once its promises have settled. */
  afterwards?: () => void;
}

/**
 * Collects what arrives in one turn of the event loop, and while earlier batches are in progress, and passes
 * it to `commit` together and in order. Each item's promise settles with its own result, or with the error
 * that stopped its batch.
 */
export function createBatcher<Item, Result>(
  commit: (items: readonly Item[]) => readonly Result[] | Promise<readonly Result[]>,
  options: BatcherOptions<Item> = {},
): {
  add(item: Item): Promise<Result>;
  /** Resolves when nothing waits any more. */
  idle(): Promise<void>;
} {
  const {
    weigh = () => 1,
    maxWeight = Number.POSITIVE_INFINITY,
    parallel = 1,
    afterwards,
  } = options;
  let waiting: Waiting<Item, Result>[] = [];
  let isScheduled = false;
  let inProgress = 0;
  let onIdle: (() => void)[] = [];

  function start(): void {
    isScheduled = false;
    while (waiting.length > 0 && inProgress < parallel) {
      inProgress++;
      void run(nextBatch());
    }
    if (inProgress > 0) return;
    for (const resolve of onIdle) resolve();
    onIdle = [];
  }

  async function run(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await commit(batch.map(({ item }) => item));
      for (const [at, { resolve }] of batch.entries()) resolve(results[at] as Result);
      if (afterwards) queueMicrotask(afterwards);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
    inProgress--;
    start();
  }

  function nextBatch(): readonly Waiting<Item, Result>[] {
    let weight = 0;
    let end = 0;
    for (const { item } of waiting) {
      weight += weigh(item);
      if (end > 0 && weight > maxWeight) break;
      end++;
    }
    const batch = waiting.slice(0, end);
    waiting = waiting.slice(end);
    return batch;
  }

  return {
    add(item) {
      if (waiting.length >= MAX_WAITING)
        return Promise.reject(new Error("Too many items are waiting"));
      return new Promise((resolve, reject) => {
        waiting.push({ item, resolve, reject });
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

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}
