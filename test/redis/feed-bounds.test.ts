import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { ADD_TO_FEED, FEED_BYTES, FEED_LENGTH, FEED_TTL_MS } from "../../src/redis/feed.ts";
import { feedKeys } from "../../src/redis/keys.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";

const [FEED_STREAM, FEED_STATE] = feedKeys();

describeWith("redis-server")("the feed is bounded", () => {
  let redis: TestRedis;
  beforeAll(async () => {
    redis = await startRedis();
  });
  beforeEach(() => redis.command("FLUSHALL"));
  afterAll(() => redis[Symbol.asyncDispose]());

  /** Adds so many entries with a text of this length. */
  async function add(count: number, bytes: number): Promise<void> {
    const script = `
      ${ADD_TO_FEED}
      for n = 1, ARGV[1] do
        addToFeed(KEYS[1], KEYS[2], 'kind', 'text', 'text', string.rep('x', ARGV[2]))
      end
    `;
    const args = [String(count), String(bytes)];
    await redis.command("EVAL", script, "2", FEED_STREAM, FEED_STATE, ...args);
  }
  const length = async () => Number(await redis.command("XLEN", FEED_STREAM));
  const bytes = async () =>
    Number(await redis.command("MEMORY", "USAGE", FEED_STREAM, "SAMPLES", "0"));

  test("in entries", async () => {
    await add(3 * FEED_LENGTH, 10);
    expect(await length()).toBeGreaterThanOrEqual(FEED_LENGTH);
    expect(await length()).toBeLessThanOrEqual(FEED_LENGTH + 100);
  });

  test("in bytes, whatever size entries have, and not below half of that", async () => {
    let most = 0;
    for (const size of [1_000_000, 10, 50_000]) {
      await add(size === 10 ? 100 : Math.ceil((1.6 * FEED_BYTES) / size), size);
      most = Math.max(most, await bytes());
      if (size === 10) continue;
      expect(await length()).toBeGreaterThanOrEqual(FEED_BYTES / 2 / size);
    }
    expect(most).toBeLessThan(1.25 * FEED_BYTES);
  });

  test("in age", async () => {
    const nowMs = Date.now();
    const addAt = async (ms: number, count: number) => {
      for (let n = 0; n < count; n++) {
        await redis.command("XADD", FEED_STREAM, `${Math.round(ms)}-${n}`, "kind", "old");
      }
    };
    await addAt(nowMs - FEED_TTL_MS - 30_000, 250);
    await addAt(nowMs - FEED_TTL_MS + 30_000, 50);
    await add(1, 10);
    // Whole pages of 100 entries.
    expect(await length()).toBeLessThanOrEqual(50 + 1 + 100);
    expect(await length()).toBeGreaterThanOrEqual(50 + 1);
  });

  test("and names the run of the Redis in each entry, which is another one after the data was lost", async () => {
    const epochs = async () => {
      const script = `
        local epochs = {}
        for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
          epochs[#epochs + 1] = entry[2][1] .. ' ' .. entry[2][2]
        end
        return epochs
      `;
      return new Set((await redis.command("EVAL", script, "1", FEED_STREAM)) as string[]);
    };
    await add(3, 10);
    const [before = "", ...others] = await epochs();
    expect(others).toEqual([]);
    expect(before).toMatch(/^epoch \d+\.\d+$/);
    await redis.command("FLUSHALL");
    await add(3, 10);
    expect(await epochs()).not.toContain(before);
  });
});
