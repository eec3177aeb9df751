import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { sharedTicketStore } from "../../src/gate/redis.ts";
import type { Revocation } from "../../src/gate/store.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { createLog } from "../../src/lib/log.ts";
import { createFeed, type Feed } from "../../src/redis/feed.ts";
import { feedKeys } from "../../src/redis/keys.ts";
import type { RedisReply, RedisTransport } from "../../src/redis/transport.ts";
import { fakeClock, type FakeClock, settle } from "../support/clock.ts";
import { describeWith } from "../support/require.ts";
import { startWire, type Wire, WIRE_NAMES } from "../support/wire.ts";

const [FEED_STREAM] = feedKeys();

type Entry = readonly [id: string, fields: readonly string[]];

/** A reader of the feed under a clock that stands still, and a writer without a fault. */
interface Reader extends AsyncDisposable {
  readonly wire: Wire;
  readonly feed: Feed;
  readonly clock: FakeClock;
  /** Texts that have arrived. */
  readonly texts: readonly string[];
  readonly logLines: readonly string[];
  readonly gaps: number;
  /** Whether anything needs the feed. */
  isNeeded: boolean;
  /** Commands that are in progress. */
  readonly inProgress: number;
  /** Whether one of them is past its deadline, and yet to be given up. */
  readonly isOverdue: boolean;
  /** Adds entries with these texts, all at once. */
  add(...texts: string[]): Promise<void>;
  /** Waits until this is so; time passes whenever the reader itself waits for nothing else. */
  until(condition: () => boolean): Promise<void>;
}

async function startReader(wire: Wire, { polls }: { polls: boolean }): Promise<Reader> {
  const clock = fakeClock();
  const logLines: string[] = [];
  const starts = new Set<{ atMs: number }>();
  function counted(transport: RedisTransport): RedisTransport {
    return {
      ...transport,
      command(args) {
        const start = { atMs: clock.monotonicMs() };
        starts.add(start);
        return transport.command(args).finally(() => starts.delete(start));
      },
    };
  }
  const feed = createFeed({
    transport: counted(wire.transport({ clock })),
    ...(!polls && { blocking: counted(wire.transport({ clock })) }),
    clock,
    log: createLog({ level: "debug", clock, write: (line) => void logLines.push(line) }),
  });
  const texts: string[] = [];
  let gaps = 0;
  feed.on("text", ({ text = "" }) => void texts.push(text));
  feed.start({ isNeeded: () => reader.isNeeded, onGap: () => void gaps++ });
  const reader: Reader = {
    ...{ wire, feed, clock, texts, logLines },
    isNeeded: true,
    get gaps() {
      return gaps;
    },
    get inProgress() {
      return starts.size;
    },
    get isOverdue() {
      const dueMs = clock.monotonicMs() - DEPENDENCY_DEADLINE_MS;
      return [...starts].some(({ atMs }) => atMs <= dueMs);
    },
    async add(...added: string[]) {
      const client = new Bun.RedisClient(wire.redis.url);
      await Promise.all(
        added.map((text) => client.send("XADD", [FEED_STREAM, "*", "kind", "text", "text", text])),
      );
      client.close();
    },
    async until(condition: () => boolean) {
      for (let turn = 0; !condition(); turn++) {
        // Without a spin: the other end needs the processor, too.
        await (turn % 100 < 50 ? settle(1) : Bun.sleep(1));
        if (starts.size === 0) clock.advance(50);
      }
    },
    async [Symbol.asyncDispose]() {
      wire.heal();
      await feed.close();
    },
  };
  return reader;
}

function isReady({ feed }: Reader): Promise<boolean> {
  return feed.ready().then(
    () => true,
    () => false,
  );
}

/** Lets time pass through everything that is in progress, of which nothing gets a reply. */
async function passSilence(reader: Reader, ms: number): Promise<void> {
  for (let passedMs = 0; passedMs < ms; passedMs += 100) {
    reader.clock.advance(100);
    await settle(2);
    while (reader.isOverdue) await Bun.sleep(1);
  }
}

/** Redis gets commands and never replies, which the reader has noticed. */
async function goSilent(reader: Reader): Promise<void> {
  reader.wire.stall();
  while (!reader.feed.isFailing) await passSilence(reader, 100);
}

for (const name of WIRE_NAMES) {
  const polls = name === "upstash";

  describeWith("redis-server")(`feed, ${polls ? "polled over Upstash" : "native"}`, () => {
    let wire: Wire;
    beforeAll(async () => {
      wire = await startWire(name);
    });
    beforeEach(() => wire.redis.command("FLUSHALL"));
    afterAll(() => wire[Symbol.asyncDispose]());
    const start = (on = wire) => startReader(on, { polls });

    test("delivers entries of a kind once, in order, with their fields; others are skipped", async () => {
      await using reader = await start();
      await reader.add("before anything was ready");
      await reader.feed.ready();
      const others: unknown[] = [];
      reader.feed.on("other", (fields) => void others.push(fields));
      await reader.add("a", "b");
      const { redis } = reader.wire;
      await redis.command("XADD", FEED_STREAM, "*", "kind", "unknown", "text", "x");
      await redis.command("XADD", FEED_STREAM, "*", "kind", "other", "of", "1", "é", "ü");
      await redis.command("XADD", FEED_STREAM, "*", "text", "without a kind");
      await reader.add("c");
      await reader.until(() => reader.texts.length >= 3);
      expect(reader.texts).toEqual(["a", "b", "c"]);
      expect(others).toEqual([{ kind: "other", of: "1", é: "ü" }]);
      expect(reader.gaps).toBe(0);
    });

    test("goes on after a listener that throws, and logs it", async () => {
      await using reader = await start();
      await reader.feed.ready();
      reader.feed.on("bad", () => {
        throw new TypeError("canary");
      });
      await reader.wire.redis.command("XADD", FEED_STREAM, "*", "kind", "bad");
      await reader.add("a");
      await reader.until(() => reader.texts.length > 0);
      expect(reader.feed.isFailing).toBe(false);
      const failed = reader.logLines.filter((line) => line.includes('"feed_failed"'));
      expect(failed).toHaveLength(1);
      expect(failed[0]).toContain('"code":"TypeError"');
      expect(failed[0]).not.toContain("canary");
    });

    test("adds a first entry to an empty stream, so that a later cut is noticed", async () => {
      await using down = await startWire(name);
      await using reader = await start(down);
      const { redis } = reader.wire;
      await reader.feed.ready();
      expect(await redis.command("XLEN", FEED_STREAM)).toBe(1);
      await reader.wire.goDown();
      if (polls) await redis.command("DEL", FEED_STREAM);
      await reader.until(() => reader.feed.isFailing);
      await reader.wire.comeBack();
      await redis.command("XADD", FEED_STREAM, "*", "kind", "text", "text", "after the cut");
      await reader.until(() => reader.gaps > 0);
      // From the newest one on, each once again.
      await reader.add("a");
      await reader.until(() => reader.texts.includes("a"));
      expect(reader.gaps).toBe(1);
    });

    test("adds no entry to a stream that has one", async () => {
      await using reader = await start();
      await reader.add("a");
      await reader.feed.ready();
      expect(await reader.wire.redis.command("XLEN", FEED_STREAM)).toBe(1);
    });

    test("delivers what was added while Redis couldn't be reached, without a gap", async () => {
      await using reader = await start();
      await reader.feed.ready();
      await reader.add("a");
      await reader.until(() => reader.texts.length === 1);
      await goSilent(reader);
      const missed = Array.from({ length: 1_200 }, (_, at) => `missed ${at}`);
      await reader.add(...missed);
      reader.wire.heal();
      await passSilence(reader, 2_000);
      await reader.until(() => reader.texts.length > 1_200);
      expect(reader.texts).toEqual(["a", ...missed]);
      expect(reader.gaps).toBe(0);
      expect(reader.feed.isFailing).toBe(false);
    });

    test("reports a gap where the stream was cut past what was read", async () => {
      await using reader = await start();
      await reader.feed.ready();
      await reader.add("a");
      await reader.until(() => reader.texts.length === 1);
      await goSilent(reader);
      await reader.add("b", "c", "d");
      await reader.wire.redis.command("XTRIM", FEED_STREAM, "MAXLEN", "1");
      reader.wire.heal();
      await passSilence(reader, 2_000);
      await reader.until(() => reader.gaps > 0);
      await reader.add("e");
      await reader.until(() => reader.texts.length > 1);
      expect(reader.texts).toEqual(["a", "e"]);
      expect(reader.gaps).toBe(1);
      expect(reader.logLines.join("")).toContain('"feed_gap"');
    });

    test("ready rejects while Redis can't be read, and resolves once it can", async () => {
      await using down = await startWire(name);
      await using reader = await start(down);
      await reader.wire.goDown();
      expect(await isReady(reader)).toBe(false);
      expect(reader.feed.isFailing).toBe(false);
      await reader.wire.comeBack();
      expect(await isReady(reader)).toBe(true);
      for (let outage = 0; outage < 2; outage++) {
        await reader.wire.goDown();
        await reader.until(() => reader.feed.isFailing);
        for (let attempt = 0; attempt < 3; attempt++) expect(await isReady(reader)).toBe(false);
        await reader.wire.comeBack();
        // At once, and not only after the pause between two attempts.
        const nowMs = reader.clock.monotonicMs();
        await reader.feed.ready();
        expect(reader.clock.monotonicMs()).toBe(nowMs);
        expect(reader.feed.isFailing).toBe(false);
      }
      await reader.add("a");
      await reader.until(() => reader.texts.length > 0);
      // One line for each outage, and not for each attempt.
      const failed = reader.logLines.filter((line) => line.includes('"feed_failed"'));
      expect(failed).toHaveLength(2);
      for (const line of failed) expect(line).toMatch(/"code":"\w+"/);
    });

    test("ready rejects at the deadline while Redis is silent", async () => {
      await using reader = await start();
      reader.wire.stall();
      const outcome = reader.feed.ready().then(
        () => "resolved",
        () => "rejected",
      );
      let isDone = false;
      void outcome.then(() => {
        isDone = true;
      });
      await settle(50);
      reader.clock.advance(1_899);
      await settle();
      expect(isDone).toBe(false);
      reader.clock.advance(1);
      expect(await outcome).toBe("rejected");
    });

    test("counts as missed entries what it couldn't read for more than 30 s, each 30 s once", async () => {
      await using reader = await start();
      const { clock, feed } = reader;
      await feed.ready();
      await goSilent(reader);
      const failingAtMs = clock.monotonicMs();
      const gapAtMs: number[] = [];
      while (gapAtMs.length < 2) {
        await passSilence(reader, 100);
        if (reader.gaps > gapAtMs.length) gapAtMs.push(clock.monotonicMs() - failingAtMs);
      }
      // An attempt and the pause after it take 2.9 s.
      for (const [at, ms] of gapAtMs.entries()) {
        const sinceLastMs = ms - (gapAtMs[at - 1] ?? 0);
        expect(sinceLastMs).toBeGreaterThanOrEqual(30_000);
        expect(sinceLastMs).toBeLessThanOrEqual(33_500);
      }
    });

    test("reads nothing while nothing needs it, from 10 s after ready", async () => {
      await using reader = await start();
      reader.isNeeded = false;
      await reader.feed.ready();
      const reads = () =>
        ["XREAD", "XRANGE", "XREVRANGE"].reduce((sum, one) => sum + reader.wire.sent(one), 0);
      const first = reads();
      // A wait inside Redis that is longer than its deadline fails; reading goes on after a pause.
      await passSilence(reader, 5_000);
      while (reads() === first) await settle(1);
      await passSilence(reader, 7_000);
      await reader.until(() => reader.inProgress + reader.clock.delays === 0);
      const last = reads();
      reader.clock.advance(60_000);
      await settle(60);
      expect(reads()).toBe(last);
      await reader.add("unread");
      // Ready again, it starts from the newest entry.
      reader.isNeeded = true;
      await reader.feed.ready();
      await reader.add("a");
      await reader.until(() => reader.texts.length > 0);
      expect(reader.texts).toEqual(["a"]);
      expect(reader.gaps).toBe(0);
    });

    test("close ends the reading, and leaves no timer", async () => {
      await using reader = await start();
      await reader.feed.ready();
      await reader.feed.close();
      while (reader.inProgress > 0) await settle(1);
      await settle();
      expect([reader.clock.timers, reader.clock.delays]).toEqual([0, 0]);
      await reader.add("unread");
      reader.clock.advance(5_000);
      await settle(60);
      expect(reader.texts).toEqual([]);
      if (!polls) {
        // The one that this question comes over is left.
        while (
          String(await wire.redis.command("CLIENT", "LIST"))
            .trim()
            .includes("\n")
        ) {
          await Bun.sleep(1);
        }
      }
    });

    test("a repeated sign-out of one session adds one entry, and one of everything each time", async () => {
      const store = sharedTicketStore({ transport: wire.transport(), feed: undefined });
      const session: Revocation = {
        ...{ kind: "user", id: "alice", session: "phone" },
        ...{ atMs: 1_000, untilMs: 100_000 },
      };
      for (const atMs of [1_000, 1_000, 2_000]) await store.revoke({ ...session, atMs });
      expect(await wire.redis.command("XLEN", FEED_STREAM)).toBe(1);
      await store.revoke({ ...session, session: "laptop" });
      await store.revoke({ ...session, id: "bob" });
      expect(await wire.redis.command("XLEN", FEED_STREAM)).toBe(3);
      // Everything that was issued up to a later time is more than before.
      for (const atMs of [1_000, 2_000]) {
        await store.revoke({ ...session, session: undefined, atMs });
      }
      expect(await wire.redis.command("XLEN", FEED_STREAM)).toBe(5);
      await store.close();
    });
  });
}

describeWith("redis-server")("feed, native", () => {
  test("delivers at once, while time stands still", async () => {
    await using wire = await startWire("native");
    await using reader = await startReader(wire, { polls: false });
    await reader.feed.ready();
    for (const text of ["a", "b", "c"]) {
      await reader.add(text);
      while (!reader.texts.includes(text)) await settle(1);
    }
  });
});

describeWith("redis-server")("feed, polled over Upstash", () => {
  let wire: Wire;
  beforeAll(async () => {
    wire = await startWire("upstash");
  });
  beforeEach(() => wire.redis.command("FLUSHALL"));
  afterAll(() => wire[Symbol.asyncDispose]());
  const start = () => startReader(wire, { polls: true });

  test.each<[string, { count: number; bytes: number }]>([
    ["of the catch-up size", { count: 560, bytes: 20_000 }],
    ["of the usual size", { count: 60, bytes: 200_000 }],
  ])(
    "reads a batch %s in smaller parts where it is more than 8 MB",
    async (_, { count, bytes }) => {
      await using reader = await start();
      await reader.feed.ready();
      const texts = Array.from({ length: count }, (_, at) => `${at} ${"x".repeat(bytes)}`);
      await reader.add(...texts);
      await reader.until(() => reader.texts.length === count);
      expect(reader.texts.map((text) => Number.parseInt(text, 10))).toEqual(
        texts.map((_, at) => at),
      );
      expect(reader.gaps).toBe(0);
      expect(reader.feed.isFailing).toBe(false);
      expect(reader.logLines.join("")).not.toContain("feed_failed");
    },
    20_000,
  );

  async function isPausing(reader: Reader): Promise<void> {
    do await settle(2);
    while (reader.inProgress > 0);
  }

  /** Polls that are sent in this time. */
  async function pollsIn(reader: Reader, ms: number): Promise<number> {
    const before = reader.wire.sent("XRANGE");
    for (let passedMs = 0; passedMs < ms; passedMs += 50) {
      reader.clock.advance(50);
      await isPausing(reader);
    }
    return reader.wire.sent("XRANGE") - before;
  }

  test("polls every 800 ms, and every 250 ms for 30 s after an entry", async () => {
    await using reader = await start();
    await reader.feed.ready();
    await isPausing(reader);
    expect(await pollsIn(reader, 8_000)).toBe(10);
    await reader.add("a");
    await reader.until(() => reader.texts.length === 1);
    await isPausing(reader);
    expect(await pollsIn(reader, 10_000)).toBe(40);
    await pollsIn(reader, 20_000);
    expect(await pollsIn(reader, 8_000)).toBeLessThanOrEqual(11);
  });

  test("wake makes it poll at once", async () => {
    await using reader = await start();
    await reader.feed.ready();
    for (const text of ["a", "b"]) {
      await reader.add(text);
      reader.feed.wake();
      while (!reader.texts.includes(text)) await settle(1);
    }
    expect(reader.texts).toEqual(["a", "b"]);
  });

  test("wake during a poll makes it poll once more", async () => {
    const first: Entry = ["1-0", ["kind", "text", "text", "first"]];
    const second: Entry = ["2-0", ["kind", "text", "text", "second"]];
    const polls: ((reply: RedisReply) => void)[] = [];
    const feed = createFeed({
      transport: {
        isOrdered: false,
        async command([name]) {
          if (name === "XREVRANGE") return [first];
          return new Promise((resolve) => polls.push(resolve));
        },
        async close() {},
      },
      clock: fakeClock(),
      log: () => {},
    });
    const texts: unknown[] = [];
    feed.on("text", ({ text }) => void texts.push(text));
    feed.start({ isNeeded: () => true, onGap: () => {} });
    await feed.ready();
    expect(polls).toHaveLength(1);
    // The reply that is on its way doesn't have the entry yet.
    feed.wake();
    polls[0]?.([first]);
    await settle();
    expect(polls).toHaveLength(2);
    polls[1]?.([first, second]);
    await settle();
    expect(texts).toEqual(["second"]);
    // Not woken any more, it waits for the next poll.
    expect(polls).toHaveLength(2);
    await feed.close();
  });
});
