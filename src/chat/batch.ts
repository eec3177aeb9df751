/** What waits at once; beyond it there is no use in promising more. */
const MAX_WAITING = 20_000;

/**
 * Collects what arrives in one turn of the event loop, and while an earlier batch is under way, and hands it
 * to `commit` together and in order, at most `maxItems` at a time. Each item's promise settles with its own
 * result, or with the error that stopped the batch. `afterwards` runs when those who wait for the results
 * have had their turn.
 */
export function createBatcher<Item, Result>(
  commit: (items: readonly Item[]) => readonly Result[] | Promise<readonly Result[]>,
  options: { maxItems?: number; afterwards?: () => void } = {},
): { add(item: Item): Promise<Result>; /** Commits what waits. */ flush(): Promise<void> } {
  const { maxItems = Number.POSITIVE_INFINITY, afterwards } = options;
  let waiting: Waiting<Item, Result>[] = [];
  let running: Promise<void> | undefined;

  async function run(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.slice(0, maxItems);
      waiting = waiting.slice(maxItems);
      try {
        const results = await commit(batch.map(({ item }) => item));
        for (const [at, { resolve }] of batch.entries()) resolve(results[at] as Result);
        if (afterwards) queueMicrotask(afterwards);
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    running = undefined;
  }

  /** After everything else that this turn brings. */
  function start(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve)).then(run);
  }

  return {
    add(item) {
      if (waiting.length >= MAX_WAITING) return Promise.reject(new Error("Too much waits already"));
      return new Promise((resolve, reject) => {
        waiting.push({ item, resolve, reject });
        running ??= start();
      });
    },
    async flush() {
      await running;
    },
  };
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}
