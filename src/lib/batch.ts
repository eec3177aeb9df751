/** What waits at once; beyond it there is no use in promising more. */
const MAX_WAITING = 20_000;

interface BatcherOptions<Item> {
  /** How much of `maxWeight` an item takes; default 1. */
  weigh?: (item: Item) => number;
  /** Of one batch; default no limit. */
  maxWeight?: number;
  /** Batches under way at once; default 1. */
  lanes?: number;
  /** Runs after each batch, when those who wait for its results have had their turn. */
  afterwards?: () => void;
}

/**
 * Collects what arrives in one turn of the event loop, and while earlier batches are under way, and hands
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
  const { weigh = () => 1, maxWeight = Number.POSITIVE_INFINITY, lanes = 1, afterwards } = options;
  let waiting: Waiting<Item, Result>[] = [];
  let isScheduled = false;
  let underWay = 0;
  let onIdle: (() => void)[] = [];

  function start(): void {
    isScheduled = false;
    while (waiting.length > 0 && underWay < lanes) {
      underWay++;
      void run(nextBatch());
    }
    if (underWay > 0) return;
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
    underWay--;
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
      if (waiting.length >= MAX_WAITING) return Promise.reject(new Error("Too much waits already"));
      return new Promise((resolve, reject) => {
        waiting.push({ item, resolve, reject });
        if (isScheduled || underWay >= lanes) return;
        isScheduled = true;
        setImmediate(start);
      });
    },
    idle() {
      if (waiting.length === 0 && underWay === 0) return Promise.resolve();
      return new Promise((resolve) => onIdle.push(resolve));
    },
  };
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}
