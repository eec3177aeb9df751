import { describe, expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import { createBatcher } from "../../src/lib/batch.ts";
import { fakeClock, settle } from "../support/clock.ts";

const DEADLINE_MS = 1_900;
const FAILING_MS = 1_000;

interface Item {
  readonly name: string;
  readonly sender?: string;
}

/** Items by name; a letter before a digit is the sender. */
function itemOf(name: string): Item {
  const sender = /^[a-z](?=\d)/.exec(name)?.[0];
  return sender === undefined ? { name } : { name, sender };
}

/** A batcher whose batches a test ends by hand, in whichever order. */
function start(
  options: { parallel?: number; maxWeight?: number; weigh?: (item: Item) => number } = {},
) {
  const clock = fakeClock();
  const batches: { names: string[]; end(): void; fail(error?: Error): void }[] = [];
  const committed: string[] = [];
  let afterwards = 0;
  const batcher = createBatcher<Item, string>(
    (items) => {
      const { promise, resolve, reject } = Promise.withResolvers<string[]>();
      const names = items.map(({ name }) => name);
      batches.push({
        names,
        end() {
          committed.push(...names);
          resolve(names.map((name) => `${name} done`));
        },
        fail: (error = new Error("failed")) => reject(error),
      });
      return promise;
    },
    {
      ...{ clock, deadlineMs: DEADLINE_MS, failingMs: FAILING_MS },
      senderOf: ({ sender }) => sender,
      afterwards: () => void afterwards++,
      ...options,
    },
  );
  const outcomes: Record<string, string> = {};
  const add = (...names: string[]) => {
    for (const name of names) {
      outcomes[name] = "waits";
      batcher.add(itemOf(name)).then(
        (result) => void (outcomes[name] = result),
        (error: Error) => void (outcomes[name] = `${error.name}: ${error.message}`),
      );
    }
  };
  return {
    ...{ clock, batches, committed, outcomes, batcher, add },
    get afterwards() {
      return afterwards;
    },
    /** Names in each batch so far. */
    names: () => batches.map(({ names }) => names.join(" ")),
  };
}

describe("what arrives in one turn of the event loop", () => {
  test("has its deadline also after everything before it was done", async () => {
    const { add, batches, clock, outcomes } = start();
    add("1");
    await settle();
    batches[0]?.end();
    await settle();
    expect(clock.delays).toBe(0);
    add("2");
    await settle();
    clock.advance(DEADLINE_MS);
    await settle();
    expect(outcomes[2]).toStartWith("DeadlineError");
  });

  test("is one thing to do, however many items there are", async () => {
    const { add, batches } = start();
    using scheduled = spyOn(globalThis, "setImmediate");
    for (const first of [1, 51]) {
      scheduled.mockClear();
      add(...Array.from({ length: 50 }, (_, n) => `${first + n}`));
      expect(scheduled).toHaveBeenCalledTimes(1);
      await settle();
    }
    batches[0]?.end();
    await settle();
    expect(batches.map(({ names }) => names.length)).toEqual([50, 50]);
  });

  test("is one batch, in order, and each item gets its own result", async () => {
    const { add, batches, names, outcomes } = start();
    add("1", "2", "3");
    await settle();
    add("4");
    await settle();
    expect(names()).toEqual(["1 2 3"]);
    batches[0]?.end();
    await settle();
    expect(names()).toEqual(["1 2 3", "4"]);
    expect(outcomes).toEqual({ 1: "1 done", 2: "2 done", 3: "3 done", 4: "waits" });
  });

  test("is split where it weighs too much; a heavy item goes alone", async () => {
    const weigh = ({ name }: Item) => Number(name);
    const { add, batches, names } = start({ maxWeight: 10, weigh });
    add("4", "6", "1", "50", "3", "7", "1");
    for (let at = 0; at < 4; at++) {
      await settle();
      batches[at]?.end();
    }
    await settle();
    expect(names()).toEqual(["4 6", "1", "50", "3 7", "1"]);
  });

  test("counts one for each item where nothing weighs them", async () => {
    const { add, batches, names } = start({ maxWeight: 2 });
    add("1", "2", "3");
    await settle();
    batches[0]?.end();
    await settle();
    expect(names()).toEqual(["1 2", "3"]);
  });

  test("is followed by afterwards, once each batch has its results, and not after a failure", async () => {
    const world = start();
    world.add("1", "2");
    await settle();
    expect(world.afterwards).toBe(0);
    world.batches[0]?.end();
    await settle();
    expect(world.afterwards).toBe(1);
    world.add("3");
    await settle();
    world.batches[1]?.fail();
    await settle();
    expect(world.afterwards).toBe(1);
  });
});

describe("batches in progress at once", () => {
  test("are as many as allowed, one by default", async () => {
    for (const parallel of [undefined, 3]) {
      const { add, batches, names } = start(
        parallel === undefined ? { maxWeight: 1 } : { maxWeight: 1, parallel },
      );
      add("1", "2", "3", "4", "5");
      await settle();
      expect(names()).toHaveLength(parallel ?? 1);
      batches[0]?.end();
      await settle();
      expect(names()).toHaveLength((parallel ?? 1) + 1);
    }
  });

  test("never have items of the same sender: the later one waits, others go ahead", async () => {
    const { add, batches, names } = start({ parallel: 3 });
    add("a1", "b1");
    await settle();
    add("a2", "c1", "x");
    await settle();
    add("a3", "c2", "b2", "y");
    await settle();
    expect(names()).toEqual(["a1 b1", "c1 x", "y"]);
    batches[1]?.end();
    await settle();
    expect(names()).toEqual(["a1 b1", "c1 x", "y", "c2"]);
    batches[0]?.end();
    await settle();
    expect(names().at(-1)).toBe("a2 a3 b2");
  });
});

describe("after a failure", () => {
  test("the batch gets its error, and what the same senders have waiting fails, too; others don't", async () => {
    const { add, batches, names, outcomes } = start();
    add("a1", "b1");
    await settle();
    add("a2", "c1", "b2", "x");
    batches[0]?.fail(new RangeError("disk full"));
    await settle();
    const failed = "RangeError: disk full";
    expect(outcomes).toMatchObject({ a1: failed, b1: failed, a2: failed, b2: failed });
    expect(names()).toEqual(["a1 b1", "c1 x"]);
    batches[1]?.end();
    await settle();
    expect(outcomes).toMatchObject({ c1: "c1 done", x: "x done" });
  });

  test("what comes next from the same sender fails for a second, and that of others doesn't", async () => {
    const { add, batches, clock, outcomes } = start();
    add("a1", "x");
    await settle();
    batches[0]?.fail();
    await settle();
    clock.advance(FAILING_MS - 1);
    add("a2", "b1", "y");
    await settle();
    batches[1]?.end();
    await settle();
    expect(outcomes.a2).toContain("An earlier item of this sender has failed");
    expect(outcomes).toMatchObject({ b1: "b1 done", y: "y done" });
    clock.advance(1);
    add("a3");
    await settle();
    batches[2]?.end();
    await settle();
    expect(outcomes.a3).toBe("a3 done");
  });

  test("a commit that throws at once is a failure like any other", async () => {
    let isBroken = true;
    const batcher = createBatcher<Item, string>(
      (items) => {
        if (isBroken) throw new Error("broken");
        return items.map(({ name }) => name);
      },
      {
        ...{ clock: fakeClock(), deadlineMs: DEADLINE_MS, failingMs: FAILING_MS },
        senderOf: () => undefined,
      },
    );
    await expect(batcher.add({ name: "1" })).rejects.toThrow("broken");
    isBroken = false;
    expect(await batcher.add({ name: "2" })).toBe("2");
  });
});

describe("an item without a result", () => {
  test("is rejected 1.9 s after it was added, in progress or waiting, each by itself", async () => {
    const { add, batches, clock, outcomes } = start();
    const late = "DeadlineError: No result in time: 1900 ms";
    add("a1");
    await settle();
    clock.advance(1_000);
    add("b1");
    clock.advance(899);
    await settle();
    expect(outcomes).toEqual({ a1: "waits", b1: "waits" });
    clock.advance(1);
    await settle();
    expect(outcomes).toEqual({ a1: late, b1: "waits" });
    clock.advance(999);
    await settle();
    expect(outcomes.b1).toBe("waits");
    clock.advance(1);
    await settle();
    expect(outcomes.b1).toBe(late);
    // Nothing that was given up is committed.
    batches[0]?.end();
    await settle();
    expect(batches).toHaveLength(1);
  });

  test("keeps its late outcome to itself, and its sender's next item in order behind it", async () => {
    const { add, batches, clock, outcomes, names } = start({ parallel: 3 });
    add("a1");
    await settle();
    clock.advance(DEADLINE_MS);
    clock.advance(FAILING_MS);
    add("a2", "b1");
    await settle();
    // Whether the first one takes effect isn't known yet.
    expect(names()).toEqual(["a1", "b1"]);
    batches[0]?.end();
    await settle();
    expect(names()).toEqual(["a1", "b1", "a2"]);
    expect(outcomes.a1).toContain("DeadlineError");
  });

  test("takes what the same sender has waiting with it", async () => {
    const { add, batches, clock, outcomes } = start();
    add("a1");
    await settle();
    clock.advance(1_800);
    add("a2", "b1");
    clock.advance(100);
    await settle();
    expect(outcomes.a2).toContain("DeadlineError");
    expect(outcomes.b1).toBe("waits");
    batches[0]?.end();
    await settle();
    expect(batches[1]?.names).toEqual(["b1"]);
  });

  test("is remembered behind any number that had theirs, under a timer or two for all of them", async () => {
    const { add, batches, clock, outcomes } = start({ parallel: 3 });
    const after = spyOn(clock, "after");
    add("stuck");
    await settle();
    for (let round = 1; round < 50; round++) {
      add(`${round}`);
      await settle();
      batches[round]?.end();
      await settle();
      clock.advance(20);
    }
    add("stuck, too");
    await settle();
    clock.advance(DEADLINE_MS - 49 * 20 - 1);
    await settle();
    expect(outcomes.stuck).toBe("waits");
    clock.advance(1);
    await settle();
    expect(outcomes.stuck).toContain("DeadlineError");
    clock.advance(49 * 20 - 1);
    await settle();
    expect([outcomes[49], outcomes["stuck, too"]]).toEqual(["49 done", "waits"]);
    clock.advance(1);
    await settle();
    expect(outcomes["stuck, too"]).toContain("DeadlineError");
    expect(after).toHaveBeenCalledTimes(2);
  });

  test("leaves no timer once there is nothing to wait for", async () => {
    const { add, batches, clock } = start();
    add("1");
    await settle();
    expect(clock.delays).toBe(1);
    batches[0]?.end();
    await settle();
    expect(clock.delays).toBe(0);
  });
});

describe("many waiting items", () => {
  test("are 20,000 at most; one more is rejected, and what its sender sends next", async () => {
    const { add, batches, outcomes, clock } = start();
    add("first");
    await settle();
    for (let n = 0; n < 20_000; n++) add(`#${n}`);
    add("a1", "#last");
    await settle();
    expect(outcomes.a1).toContain("Too many items are waiting");
    expect(outcomes["#last"]).toContain("Too many items are waiting");
    batches[0]?.end();
    await settle();
    batches[1]?.end();
    await settle();
    expect(outcomes["#19999"]).toBe("#19999 done");
    add("a2", "b1");
    await settle();
    batches[2]?.end();
    await settle();
    // It would overtake the one that was rejected.
    expect(outcomes.a2).toContain("An earlier item of this sender has failed");
    expect(outcomes.b1).toBe("b1 done");
    clock.advance(FAILING_MS);
    add("a3");
    await settle();
    batches[3]?.end();
    await settle();
    expect(outcomes.a3).toBe("a3 done");
  });

  test("that fail together take time in proportion to their number", async () => {
    const timeOf = async (count: number) => {
      const { add, clock, outcomes } = start();
      add("first");
      await settle();
      for (let n = 0; n < count; n++) add(String.fromCharCode(97 + (n % 26)) + n);
      const startMs = performance.now();
      clock.advance(DEADLINE_MS);
      await settle();
      expect(Object.values(outcomes).filter((one) => one === "waits")).toEqual([]);
      return performance.now() - startMs;
    };
    await timeOf(1_000);
    const few = Math.min(await timeOf(1_900), await timeOf(1_900), await timeOf(1_900));
    const many = Math.min(await timeOf(19_000), await timeOf(19_000));
    // Ten times as many; in time by their square it would be a hundred times.
    expect(many).toBeLessThan(60 * few + 100);
  });
});

describe("idle", () => {
  test("resolves at once when nothing waits, otherwise after the last batch", async () => {
    const { add, batches, batcher } = start();
    await batcher.idle();
    add("1");
    let isIdle = false;
    const idle = batcher.idle().then(() => {
      isIdle = true;
    });
    await settle();
    add("2");
    batches[0]?.end();
    await settle();
    expect(isIdle).toBe(false);
    batches[1]?.fail();
    await idle;
    await batcher.idle();
  });
});

type Step =
  | { readonly kind: "add"; readonly sender: "a" | "b" | "c" }
  | { readonly kind: "end" | "fail"; readonly which: number }
  | { readonly kind: "pass"; readonly ms: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("add" as const),
        sender: fc.constantFrom("a" as const, "b" as const, "c" as const),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("end" as const), which: fc.nat(5) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant("fail" as const), which: fc.nat(5) }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant("pass" as const), ms: fc.nat(1_500) }),
    },
  ),
  { maxLength: 80 },
);

test("whatever fails and however late, a sender's items are committed in their order, one batch at a time", async () => {
  await fc.assert(
    fc.asyncProperty(steps, fc.integer({ min: 1, max: 4 }), async (all, parallel) => {
      const { add, batches, clock, committed } = start({ parallel, maxWeight: 3 });
      const open: (typeof batches)[number][] = [];
      const added: string[] = [];
      let seen = 0;
      for (const step of all) {
        if (step.kind === "add") {
          added.push(`${step.sender}${added.length}`);
          add(added.at(-1) as string);
        } else if (step.kind === "pass") {
          clock.advance(step.ms);
        } else {
          const [batch] = open.splice(step.which % Math.max(1, open.length), 1);
          if (step.kind === "end") batch?.end();
          else batch?.fail();
        }
        if (step.kind !== "add") await settle(3);
        open.push(...batches.slice(seen));
        seen = batches.length;
        expect(open.length).toBeLessThanOrEqual(parallel);
        const senders = open.flatMap(({ names }) => [...new Set(names.map((name) => name[0]))]);
        expect(new Set(senders).size).toBe(senders.length);
      }
      for (const sender of "abc") {
        const kept = committed.filter((name) => name.startsWith(sender));
        expect(kept).toEqual(added.filter((name) => kept.includes(name)));
      }
    }),
    { numRuns: 60 },
  );
});
