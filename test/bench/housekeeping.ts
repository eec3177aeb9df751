import { join } from "node:path";
import type { ChatHistory } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { type Clock, systemClock } from "../../src/lib/clock.ts";
import { openRedis } from "../../src/open.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import type { Figure } from "./figures.ts";
import { fill, longestStallMs, visitorId } from "./history.ts";
import { temporaryFolder } from "../support/folder.ts";

const MESSAGES = 1_000_000;
/** Chats that they are in, for what concerns all chats. */
const CHATS = 1_000;
/** Messages in one transaction of SQLite while it is filled. */
const AT_ONCE = 2_000;
/** Longest stall that is acceptable, in milliseconds. */
const STALL_MS = 50;
/** Later than any message is kept. */
const LATER_MS = 100 * 86_400_000;

/** What the event loop waits for while SQLite deletes: what is too old, and one long chat. */
export async function housekeeping(): Promise<Figure[]> {
  await using directory = await temporaryFolder();
  const sweep = Promise.withResolvers<() => void>();
  let aheadMs = 0;
  const clock: Clock = {
    ...systemClock,
    nowMs: () => Date.now() + aheadMs,
    every: (_, run) => (sweep.resolve(run), () => {}),
  };
  const old = sqliteChatHistory({ path: join(directory.path, "old.sqlite"), clock });
  await fillChats(old, CHATS, AT_ONCE);
  aheadMs = LATER_MS;
  (await sweep.promise)();
  const swept = await longestStallMs(hasNone(old, visitorId(CHATS - 1)));
  await old.close();

  const path = join(directory.path, "long.sqlite");
  const long = sqliteChatHistory({ path, retention: { maxMessages: 0 } });
  await fillChats(long, 1, AT_ONCE);
  const deleted = await longestStallMs(long.remove({ user: "user", visitor: visitorId(0) }));
  await long.close();
  return [
    stall("sweep of old messages in SQLite", swept),
    stall("deletion of a chat in SQLite", deleted),
  ];
}

/** What Redis itself is held up by: one long chat that is deleted, and one whose messages are too old. */
export async function redisHousekeeping(): Promise<Figure[]> {
  let aheadMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => Date.now() + aheadMs };
  await using redis = await startRedis();
  const opened = await openRedis({ url: redis.url }, { clock, retention: { maxMessages: 0 } });
  const { chat: history } = opened;
  const chat = { user: "user", visitor: visitorId(0) };
  await fillChats(history, 1);
  const deleted = await longestPingMs(redis, history.remove(chat));
  await fillChats(history, 1);
  aheadMs = LATER_MS;
  const swept = await longestPingMs(redis, history.messages(chat, { limit: 50 }));
  await history.close();
  await opened.store.close();
  return [
    stall("sweep of old messages in Redis", swept),
    stall("deletion of a chat in Redis", deleted),
  ];
}

function stall(figure: string, stallMs: number): Figure {
  return {
    figure: `longest stall: ${figure}, ${MESSAGES} messages`,
    measured: stallMs,
    control: STALL_MS,
    unit: "ms",
    result: stallMs / STALL_MS,
    target: { most: 1 },
  };
}

/** Visitors who write once, and whom the user then answers in turn. */
function fillChats(history: ChatHistory, chats: number, atOnce?: number): Promise<void> {
  return fill(history, { count: MESSAGES, atOnce }, (number) => ({
    chat: { user: "user", visitor: visitorId(number % chats) },
    from: number < chats ? "visitor" : "user",
    content: "x".repeat(100),
    ref: String(number),
    atMs: Date.now(),
  }));
}

/** Resolves once there is no chat with this visitor any more. */
async function hasNone(history: ChatHistory, visitor: string): Promise<void> {
  while (await history.messages({ user: "user", visitor }, { limit: 1 })) await Bun.sleep(20);
}

/** The longest wait for a reply from Redis while `work` lasts, in milliseconds. */
async function longestPingMs(redis: TestRedis, work: Promise<unknown>): Promise<number> {
  const client = new Bun.RedisClient(redis.url);
  await client.connect();
  let isDone = false;
  work.finally(() => {
    isDone = true;
  });
  let longestMs = 0;
  do {
    const startedAtMs = performance.now();
    await client.ping();
    longestMs = Math.max(longestMs, performance.now() - startedAtMs);
  } while (!isDone);
  await work;
  client.close();
  return longestMs;
}
