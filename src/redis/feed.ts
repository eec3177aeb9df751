import type { Clock } from "../lib/clock.ts";
import { faultCode, type Log } from "../lib/log.ts";
import type { RedisReply, RedisTransport } from "./transport.ts";

/** One entry of the feed: its id and its fields. */
type Entry = readonly [id: string, fields: readonly string[]];

/** The cursor before the first entry. */
const EMPTY = "0-0";
/** Entries read at once: far fewer than the stream keeps. */
const BATCH = 50;
/** How long one blocking read waits, in milliseconds: shorter than any transport's deadline. */
const BLOCK_MS = 1_000;
/** Polling: how soon after something happened, and how seldom when nothing does (a sign-out is due within 1 s). */
const BUSY_POLL_MS = 250;
const IDLE_POLL_MS = 800;
/** Polling stays quick for so long after the last entry. */
const BUSY_FOR_MS = 30_000;
/** First and longest pause after a failed read. */
const RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;
/** Somebody who asked to be ready is about to listen: reading goes on for so long. */
const GRACE_MS = 10_000;

/** What instances on one Redis tell each other, each once and in order. */
export interface Feed {
  /** Hands every entry of a kind to `run`, as an object of its fields. */
  on(kind: string, run: (fields: Readonly<Record<string, string>>) => void): void;
  /** Once. Nothing is read while `hasListeners` says no; `onGap`: entries were missed. */
  start(options: { hasListeners: () => boolean; onGap: () => void }): void;
  /** Resolves when whatever is added from now on will be handed on. Rejects when Redis doesn't answer. */
  ready(): Promise<void>;
  /** Something was added just now: read at once where reading is by polling. */
  wake(): void;
  close(): Promise<void>;
}

/** The stream. Entries have a field `kind`, and others by kind. */
export const FEED_STREAM = "ws-ticket:feed";
/** Entries that an instance may be behind, about. */
export const FEED_LENGTH = 4_000;

/**
 * Reads the stream by cursor, so that a lost connection or a restarted Redis delays entries and loses none;
 * where the stream was cut past the cursor, `onGap` says so.
 *
 * `blocking`: a further connection that may wait inside Redis, so that entries come at once. Over Upstash
 * there is none, and the stream is polled.
 */
export function createFeed(options: {
  transport: RedisTransport;
  blocking?: RedisTransport | undefined;
  clock: Clock;
  log: Log;
}): Feed {
  const { transport, blocking, clock, log } = options;
  const kinds = new Map<string, (fields: Readonly<Record<string, string>>) => void>();
  let hasListeners = () => false;
  let onGap = () => {};
  let cursor = EMPTY;
  let starting: Promise<void> | undefined;
  let wantedAtMs = Number.NEGATIVE_INFINITY;
  let lastEntryAtMs = Number.NEGATIVE_INFINITY;
  let closed = false;
  let woken = false;
  let endPause: () => void = () => {};

  async function begin(): Promise<void> {
    await skipToNewest();
    void run();
  }

  async function skipToNewest(): Promise<void> {
    const [newest] = entriesOf(
      await transport.command(["XREVRANGE", FEED_STREAM, "+", "-", "COUNT", "1"]),
    );
    cursor = newest?.[0] ?? EMPTY;
  }

  function handOn(list: readonly string[]): void {
    const fields = toFields(list);
    try {
      kinds.get(fields.kind ?? "")?.(fields);
    } catch (error) {
      log("error", "feed_failed", { code: faultCode(error) });
    }
  }

  function isWanted(): boolean {
    return !closed && (hasListeners() || clock.monotonicMs() - wantedAtMs < GRACE_MS);
  }

  async function run(): Promise<void> {
    let retryMs = 0;
    let isBehind = false;
    while (isWanted()) {
      try {
        woken = false;
        const entries = await read({ mayWait: retryMs === 0 && !isBehind });
        retryMs = 0;
        isBehind = entries.length >= BATCH;
        for (const [id, fields] of entries) {
          cursor = id;
          handOn(fields);
        }
        if (entries.length > 0) lastEntryAtMs = clock.monotonicMs();
        if (!blocking && !isBehind && !woken) await pause(pollMs());
      } catch (error) {
        if (closed) break;
        if (retryMs === 0) log("error", "feed_failed", { code: faultCode(error) });
        retryMs = Math.min(Math.max(RETRY_MS, retryMs * 2), MAX_RETRY_MS);
        await pause(retryMs);
      }
    }
    starting = undefined;
  }

  async function read({ mayWait }: { mayWait: boolean }): Promise<readonly Entry[]> {
    if (blocking && mayWait) {
      const news = await waitForNews(blocking);
      // Fewer than the stream keeps: nothing was cut between the cursor and them.
      if (news.length < BATCH) return news;
    }
    const entries = entriesOf(
      await transport.command(["XRANGE", FEED_STREAM, cursor, "+", "COUNT", String(BATCH + 1)]),
    );
    if (cursor === EMPTY) return entries;
    // The entry at the cursor comes along. Without it the stream was cut, and something may be missing.
    if (entries[0]?.[0] === cursor) return entries.slice(1);
    log("warn", "feed_gap");
    await skipToNewest();
    onGap();
    return [];
  }

  async function waitForNews(connection: RedisTransport): Promise<readonly Entry[]> {
    const reply = await connection.command([
      ...["XREAD", "COUNT", String(BATCH), "BLOCK", String(BLOCK_MS)],
      ...["STREAMS", FEED_STREAM, cursor],
    ]);
    // One stream with its entries: a pair, or a list of one pair, by the version of the protocol.
    const pair = (reply ?? []) as readonly RedisReply[];
    return entriesOf(pair.length === 1 ? (pair[0] as RedisReply[])[1] : pair[1]);
  }

  function pollMs(): number {
    return clock.monotonicMs() - lastEntryAtMs < BUSY_FOR_MS ? BUSY_POLL_MS : IDLE_POLL_MS;
  }

  function pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    endPause = () => {
      clearTimeout(timer);
      resolve();
    };
    return promise;
  }

  return {
    on: (kind, run) => void kinds.set(kind, run),
    start(listener) {
      ({ hasListeners, onGap } = listener);
    },
    ready() {
      wantedAtMs = clock.monotonicMs();
      if (!starting) {
        starting = begin();
        starting.catch(() => {
          starting = undefined;
        });
      }
      return starting;
    },
    wake() {
      woken = true;
      endPause();
    },
    async close() {
      closed = true;
      endPause();
      await blocking?.close();
      await transport.close();
    },
  };
}

function entriesOf(reply: RedisReply | undefined): readonly Entry[] {
  return (reply ?? []) as unknown as readonly Entry[];
}

export function toFields(list: readonly string[]): Record<string, string> {
  const fields: Record<string, string> = {};
  for (let at = 1; at < list.length; at += 2) fields[list[at - 1] as string] = list[at] as string;
  return fields;
}
