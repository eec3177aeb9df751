import { type Clock, pause } from "../lib/clock.ts";
import { ResponseError } from "../lib/fetch.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { feedKeys } from "./keys.ts";
import type { RedisReply, RedisTransport } from "./transport.ts";

/** One entry of the feed: its id and its fields. */
type Entry = readonly [id: string, fields: readonly string[]];

/** Entries read at once: far fewer than the stream keeps. */
const BATCH = 50;
/** Entries read at once by a reader that has fallen behind. */
const CATCH_UP_BATCH = 500;
/** How long one blocking read waits, in milliseconds: shorter than any transport's deadline. */
const BLOCK_MS = 1_000;
/** Interval of polling while something happens, and while nothing does, in milliseconds (a sign-out is due within 1 s). */
const BUSY_POLL_MS = 250;
const IDLE_POLL_MS = 800;
/** Polling slows down this long after the last entry, in milliseconds. */
const BUSY_FOR_MS = 30_000;
/** First and longest pause after a failed read, in milliseconds. */
const RETRY_MS = 100;
const MAX_RETRY_MS = 1_000;
/** Reading continues this long after `ready`, in milliseconds, since a listener is about to come. */
const GRACE_MS = 10_000;
/** After failing to read for this long, in milliseconds, entries count as missed: sign-outs among them are overdue. */
const MAX_DEAF_MS = 30_000;

/** Events between instances on one Redis, each entry once and in order. */
export interface Feed {
  /** Calls `run` for every entry of a kind, with its fields. */
  on(kind: string, run: (fields: Readonly<Record<string, string>>) => void): void;
  /** Once. Nothing is read while `isNeeded` returns `false`; `onGap`: entries were missed. */
  start(options: { isNeeded: () => boolean; onGap: () => void }): void;
  /** Resolves when every entry from now on will arrive. Rejects while Redis can't be read. */
  ready(): Promise<void>;
  /** Whether the last attempt to read failed. */
  readonly isFailing: boolean;
  /** How long ago everything had been read, in milliseconds; 0 while nothing needs to be. */
  readonly lagMs: number;
  /** An entry was just added: read at once where reading is by polling. */
  wake(): void;
  /** Closes its connections, too. */
  close(): Promise<void>;
}

/** Entries that an instance may be behind, about. */
export const FEED_LENGTH = 4_000;
/** Longest life of an entry, in milliseconds, about. */
export const FEED_TTL_MS = 600_000;
/** Longest stream, in bytes of its fields. */
export const FEED_BYTES = 32 * 1024 * 1024;

/**
 * Lua: `addToFeed(feed, state, ...)` adds an entry with these fields and values, and keeps the stream bounded in
 * entries, age and bytes. In bytes by two halves, the older one dropped as a whole.
 */
export const ADD_TO_FEED = `
  local function addToFeed(feed, state, ...)
    local time = redis.call('TIME')
    local epoch = redis.call('HGET', state, 'epoch')
    if not epoch then
      epoch = time[1] .. '.' .. time[2]
      redis.call('HSET', state, 'epoch', epoch)
    end
    local id = redis.call('XADD', feed, 'MAXLEN', '~', ${FEED_LENGTH}, '*', 'epoch', epoch, ...)
    redis.call('XTRIM', feed, 'MINID', '~', string.format('%.0f', time[1] * 1000 - ${FEED_TTL_MS}))
    local bytes = 0
    for _, text in ipairs({...}) do bytes = bytes + #text end
    if redis.call('HINCRBY', state, 'bytes', bytes) > ${FEED_BYTES / 2} then
      local mark = redis.call('HGET', state, 'mark')
      if mark then redis.call('XTRIM', feed, 'MINID', mark) end
      redis.call('HSET', state, 'mark', id, 'bytes', 0)
    end
    return id
  end
`;

/** Adds the first entry, so that there always is one to read from. */
const ADD_FIRST = `
  ${ADD_TO_FEED}
  return addToFeed(KEYS[1], KEYS[2], 'kind', 'start')
`;

/**
 * Reads the stream by cursor, so that a lost connection or a restarted Redis delays entries and loses none;
 * where the stream was cut past the cursor, `onGap` says so.
 *
 * `blocking`: a second connection that may wait inside Redis, so that entries arrive at once. Over Upstash
 * there is none, and the stream is polled.
 */
export function createFeed(options: {
  transport: RedisTransport;
  blocking?: RedisTransport | undefined;
  /** Of the keys' names. */
  prefix?: string | undefined;
  clock: Clock;
  log: Log;
}): Feed {
  const { transport, blocking, clock, log } = options;
  const [stream, state] = feedKeys(options.prefix);
  const kinds = new Map<string, (fields: Readonly<Record<string, string>>) => void>();
  const closing = new AbortController();
  let isNeeded = () => false;
  let onGap = () => {};
  /** The last entry that was read; there always is one, so that a cut stream is noticed. */
  let cursor = "";
  /** Of that entry; `undefined` for one of an older version. */
  let epoch: string | undefined;
  let starting: Promise<void> | undefined;
  let neededAtMs = Number.NEGATIVE_INFINITY;
  let lastEntryAtMs = Number.NEGATIVE_INFINITY;
  let isReading = false;
  let caughtUpAtMs: number;
  /** Since when reading has failed. */
  let failedSinceMs: number | undefined;
  let isWoken = false;
  let waking = new AbortController();
  /** Called at the end of the read in progress, or of the next one. */
  const readEnds = new Set<() => void>();

  async function begin(): Promise<void> {
    await skipToNewest();
    caughtUpAtMs = clock.monotonicMs();
    void run();
  }

  async function skipToNewest(): Promise<void> {
    const [id, fields] = (await readNewest()) ?? (await addFirst());
    cursor = id;
    epoch = toFields(fields).epoch;
  }

  /** After the data was lost and begun anew, whatever stood in between is missing. */
  function checkEpoch({ epoch: own = epoch }: Readonly<Record<string, string>>): void {
    if (epoch !== undefined && own !== epoch) reportGap();
    epoch = own;
  }

  async function readNewest(): Promise<Entry | undefined> {
    const reply = await transport.command(["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
    return entriesOf(reply)[0];
  }

  async function addFirst(): Promise<Entry> {
    await transport.command(["EVAL", ADD_FIRST, "2", stream, state]);
    const first = await readNewest();
    if (!first) throw new Error("Redis broke off: no entry in the feed");
    return first;
  }

  function deliver(fields: Readonly<Record<string, string>>): void {
    try {
      kinds.get(fields.kind ?? "")?.(fields);
    } catch (error) {
      log("error", "feed_failed", { code: faultCode(error) });
    }
  }

  function reportGap(): void {
    log("warn", "feed_gap");
    onGap();
  }

  function continues(): boolean {
    const isAwaited = clock.monotonicMs() - neededAtMs < GRACE_MS;
    return !closing.signal.aborted && (isNeeded() || isAwaited);
  }

  async function run(): Promise<void> {
    let retryMs = 0;
    let isBehind = false;
    let largest = CATCH_UP_BATCH;
    isReading = true;
    while (continues()) {
      const batch = Math.min(isBehind ? CATCH_UP_BATCH : BATCH, largest);
      try {
        isWoken = false;
        const entries = await read({ batch, mayWait: retryMs === 0 && !isBehind });
        retryMs = 0;
        failedSinceMs = undefined;
        endRead();
        isBehind = entries.length >= batch;
        if (!isBehind) caughtUpAtMs = clock.monotonicMs();
        if (!isBehind) largest = CATCH_UP_BATCH;
        for (const [id, list] of entries) {
          const fields = toFields(list);
          cursor = id;
          checkEpoch(fields);
          deliver(fields);
        }
        if (entries.length > 0) lastEntryAtMs = clock.monotonicMs();
        if (!blocking && !isBehind && !isWoken) await pauseUntilWoken(pollMs());
      } catch (error) {
        if (closing.signal.aborted) break;
        if (error instanceof ResponseError && error.code === "too_large" && batch > 1) {
          largest = Math.ceil(batch / 2);
          continue;
        }
        fail(error, { isFirst: retryMs === 0 });
        endRead();
        retryMs = Math.min(Math.max(RETRY_MS, retryMs * 2), MAX_RETRY_MS);
        await pauseUntilWoken(retryMs);
      }
    }
    starting = undefined;
    isReading = false;
    failedSinceMs = undefined;
    endRead();
  }

  function endRead(): void {
    for (const end of readEnds) end();
    readEnds.clear();
  }

  function fail(error: unknown, { isFirst }: { isFirst: boolean }): void {
    if (isFirst) log("error", "feed_failed", { code: faultCode(error) });
    const nowMs = clock.monotonicMs();
    failedSinceMs ??= nowMs;
    if (nowMs - failedSinceMs < MAX_DEAF_MS) return;
    failedSinceMs = nowMs;
    reportGap();
  }

  async function read({
    batch,
    mayWait,
  }: {
    batch: number;
    mayWait: boolean;
  }): Promise<readonly Entry[]> {
    if (blocking && mayWait) {
      const entries = await waitForEntries(blocking, batch);
      // Fewer than the stream keeps: nothing was cut between the cursor and them.
      if (entries.length < batch) return entries;
    }
    const range = ["XRANGE", stream, cursor, "+", "COUNT", String(batch + 1)];
    const entries = entriesOf(await transport.command(range));
    // The entry at the cursor is included. Without it the stream was cut, and something may be missing.
    if (entries[0]?.[0] === cursor) return entries.slice(1);
    await skipToNewest();
    reportGap();
    return [];
  }

  async function waitForEntries(
    connection: RedisTransport,
    batch: number,
  ): Promise<readonly Entry[]> {
    const options = ["COUNT", String(batch), "BLOCK", String(BLOCK_MS)];
    const reply = await connection.command(["XREAD", ...options, "STREAMS", stream, cursor]);
    // One stream with its entries: a pair, or a list of one pair, depending on the protocol's version.
    const pair = (reply ?? []) as readonly RedisReply[];
    return entriesOf(pair.length === 1 ? (pair[0] as RedisReply[])[1] : pair[1]);
  }

  function pollMs(): number {
    return clock.monotonicMs() - lastEntryAtMs < BUSY_FOR_MS ? BUSY_POLL_MS : IDLE_POLL_MS;
  }

  async function pauseUntilWoken(delayMs: number): Promise<void> {
    if (closing.signal.aborted) return;
    waking = new AbortController();
    await pause(delayMs, clock, waking.signal);
  }

  return {
    on: (kind, run) => void kinds.set(kind, run),
    start(listener) {
      ({ isNeeded, onGap } = listener);
    },
    async ready() {
      neededAtMs = clock.monotonicMs();
      if (!starting) {
        starting = begin();
        starting.catch(() => {
          starting = undefined;
        });
      }
      await starting;
      if (failedSinceMs === undefined) return;
      // Redis may be back: read now rather than after the pause.
      waking.abort();
      await new Promise<void>((resolve) => readEnds.add(resolve));
      if (failedSinceMs !== undefined) throw new Error("Feed can't be read");
    },
    get isFailing() {
      return failedSinceMs !== undefined;
    },
    get lagMs() {
      return isReading ? clock.monotonicMs() - caughtUpAtMs : 0;
    },
    wake() {
      isWoken = true;
      waking.abort();
    },
    async close() {
      closing.abort();
      waking.abort();
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
