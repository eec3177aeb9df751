import { describe, expect, test } from "bun:test";
import { ResponseError } from "../../src/lib/fetch.ts";
import { createFeed } from "../../src/redis/feed.ts";
import type { RedisReply, RedisTransport } from "../../src/redis/transport.ts";
import { fakeClock, settle } from "../support/clock.ts";

type Entry = readonly [id: string, fields: readonly string[]];

/** A stream in this process, over a transport that answers at once or never. */
function startStream({
  blocks = false,
  version = 3,
  mostAtOnce = Number.POSITIVE_INFINITY,
}: { blocks?: boolean; version?: 2 | 3; mostAtOnce?: number } = {}) {
  const clock = fakeClock();
  const entries: Entry[] = [["1-0", ["kind", "text", "epoch", "a", "text", "first"]]];
  const limit = { mostAtOnce };
  const state = { isNeeded: true, isAway: false };
  const reads: string[] = [];
  let waiting: (() => void) | undefined;
  const numberOf = (id: string) => Number(id.split("-")[0]);

  function rangeFrom(id: string, count: number): Entry[] {
    const found = entries.filter(([one]) => numberOf(one) >= numberOf(id)).slice(0, count);
    if (found.length > limit.mostAtOnce) throw new ResponseError("too_large");
    return found;
  }
  const transport: RedisTransport = {
    isOrdered: blocks,
    async command([name, ...args]) {
      if (state.isAway) {
        reads.push("failed");
        throw new Error("Connection closed");
      }
      if (name === "XREVRANGE") return [entries.at(-1) as Entry];
      if (name === "XRANGE") {
        reads.push(`XRANGE ${args.at(-1)}`);
        return rangeFrom(args[1] as string, Number(args.at(-1)));
      }
      reads.push(`XREAD ${args[1]}`);
      const next = () => {
        const from = numberOf(args.at(-1) as string) + 1;
        return rangeFrom(`${from}-0`, Number(args[1]));
      };
      if (next().length === 0) await new Promise<void>((resolve) => (waiting = resolve));
      const found = ["ws-ticket:feed", next()] as const;
      if (found[1].length === 0) return null;
      return version === 2 ? [found] : found;
    },
    async close() {},
  };
  const feed = createFeed({
    ...{ transport, clock, log: () => {} },
    blocking: blocks ? transport : undefined,
  });
  const texts: string[] = [];
  let gaps = 0;
  feed.on("text", ({ text = "" }) => void texts.push(text));
  feed.start({ isNeeded: () => state.isNeeded, onGap: () => void gaps++ });
  return {
    ...{ clock, feed, entries, reads, texts, limit, state },
    get gaps() {
      return gaps;
    },
    /** Adds so many entries, and lets everything happen that needs no time. */
    async add(count: number, epoch: readonly string[] = ["epoch", "a"]): Promise<void> {
      for (let n = 0; n < count; n++) {
        const id = entries.length + 1;
        entries.push([`${id}-0`, ["kind", "text", ...epoch, "text", `${id}`]]);
      }
      reads.length = 0;
      waiting?.();
      feed.wake();
      await settle(40);
    },
  };
}

describe("a reader of the feed", () => {
  test("reads 50 entries at once, and 500 while it is behind: polling", async () => {
    const stream = startStream();
    await stream.feed.ready();
    await settle();
    await stream.add(49);
    // One more than in a batch: the entry at the cursor, too.
    expect(stream.reads).toEqual(["XRANGE 51"]);
    await stream.add(50);
    expect(stream.reads).toEqual(["XRANGE 51", "XRANGE 501"]);
    await stream.add(1_300);
    expect(stream.reads).toEqual(["XRANGE 51", ...Array(3).fill("XRANGE 501")]);
    await stream.add(550);
    expect(stream.reads).toEqual(["XRANGE 51", "XRANGE 501", "XRANGE 501"]);
    await stream.add(1);
    expect(stream.reads).toEqual(["XRANGE 51"]);
    expect(stream.texts).toEqual(Array.from({ length: 1_950 }, (_, at) => `${at + 2}`));
    expect(stream.gaps).toBe(0);
    await stream.feed.close();
  });

  test.each([2, 3] as const)(
    "waits inside Redis again after a wait without an entry: RESP%i",
    async (version) => {
      const stream = startStream({ blocks: true, version });
      await stream.feed.ready();
      await settle();
      await stream.add(0);
      expect(stream.reads).toEqual(["XREAD 50"]);
      expect(stream.feed.isFailing).toBe(false);
      await stream.add(2);
      expect(stream.texts).toEqual(["2", "3"]);
      expect(stream.gaps).toBe(0);
      await stream.feed.close();
    },
  );

  test("that is closed during a read says nothing of its end", async () => {
    const reads: PromiseWithResolvers<RedisReply>[] = [];
    const lines: string[] = [];
    const feed = createFeed({
      transport: {
        isOrdered: false,
        async command([name]) {
          if (name === "XREVRANGE") return [["1-0", []]];
          const read = Promise.withResolvers<RedisReply>();
          reads.push(read);
          return read.promise;
        },
        async close() {},
      },
      clock: fakeClock(),
      log: (_, event) => void lines.push(event),
    });
    feed.start({ isNeeded: () => true, onGap: () => {} });
    await feed.ready();
    await feed.close();
    reads[0]?.reject(new Error("Connection closed"));
    await settle();
    expect([reads.length, lines]).toEqual([1, []]);
  });

  test("that is closed between two polls leaves no timer", async () => {
    const { clock, feed } = startStream();
    await feed.ready();
    await settle();
    expect(clock.delays).toBe(1);
    await feed.close();
    expect(clock.delays).toBe(0);
  });

  test("reads 50 entries at once, and 500 while it is behind: waiting inside Redis", async () => {
    const stream = startStream({ blocks: true });
    await stream.feed.ready();
    await settle();
    await stream.add(49);
    expect(stream.reads).toEqual(["XREAD 50"]);
    // As many as in a batch may be fewer than there were: whether the stream was cut is checked.
    await stream.add(50);
    expect(stream.reads).toEqual(["XRANGE 51", "XRANGE 501", "XREAD 50"]);
    await stream.add(1_300);
    expect(stream.reads).toEqual(["XRANGE 51", ...Array(3).fill("XRANGE 501"), "XREAD 50"]);
    expect(stream.texts).toEqual(Array.from({ length: 1_399 }, (_, at) => `${at + 2}`));
    expect(stream.gaps).toBe(0);
    await stream.feed.close();
  });

  test("halves a batch that is too large for one response, as often as needed, until it has caught up", async () => {
    const stream = startStream({ mostAtOnce: 20 });
    await stream.feed.ready();
    await settle();
    await stream.add(100);
    expect(stream.reads.slice(0, 4)).toEqual(["XRANGE 51", "XRANGE 26", "XRANGE 14", "XRANGE 14"]);
    expect(stream.texts).toHaveLength(100);
    stream.limit.mostAtOnce = Number.POSITIVE_INFINITY;
    await stream.add(1_300);
    expect(stream.reads.slice(0, 2)).toEqual(["XRANGE 51", "XRANGE 501"]);
    expect(stream.texts).toEqual(Array.from({ length: 1_400 }, (_, at) => `${at + 2}`));
    expect(stream.feed.isFailing).toBe(false);
    await stream.feed.close();
  });

  test("fails while not even one entry can be read", async () => {
    const stream = startStream({ mostAtOnce: 1 });
    await stream.feed.ready();
    await settle();
    await stream.add(10);
    expect(stream.feed.isFailing).toBe(true);
    expect(stream.reads.at(-1)).toBe("XRANGE 2");
    expect(stream.texts).toEqual([]);
    await stream.feed.close();
  });

  test("pauses after each failed read, for longer each time and for 1 s at most", async () => {
    const { clock, feed, reads, state } = startStream();
    await feed.ready();
    await settle();
    state.isAway = true;
    clock.advance(800);
    await settle();
    for (const pauseMs of [100, 200, 400, 800, 1_000, 1_000]) {
      reads.length = 0;
      clock.advance(pauseMs - 1);
      await settle();
      expect(reads).toEqual([]);
      clock.advance(1);
      await settle();
      expect(reads).toEqual(["failed"]);
    }
    await feed.close();
  });

  test("that failed is neither failing nor behind any more once nothing needs it", async () => {
    const { clock, feed, state } = startStream();
    await feed.ready();
    await settle();
    clock.advance(800);
    expect(feed.lagMs).toBe(800);
    await settle();
    expect(feed.lagMs).toBe(0);
    state.isAway = true;
    clock.advance(800);
    await settle();
    expect(feed.isFailing).toBe(true);
    expect(feed.lagMs).toBe(800);
    state.isNeeded = false;
    // What was ready is about to be needed, for 10 s.
    clock.advance(10_000);
    await settle();
    expect(feed.isFailing).toBe(false);
    expect(feed.lagMs).toBe(0);
    await feed.close();
  });

  test("takes entries of another run of Redis for a gap, and those of an older version for none", async () => {
    const stream = startStream();
    await stream.feed.ready();
    await settle();
    await stream.add(1, []);
    await stream.add(1);
    expect(stream.gaps).toBe(0);
    await stream.add(2, ["epoch", "b"]);
    expect(stream.gaps).toBe(1);
    await stream.add(1, ["epoch", "c"]);
    expect(stream.gaps).toBe(2);
    expect(stream.texts).toEqual(["2", "3", "4", "5", "6"]);
    await stream.feed.close();
  });
});
