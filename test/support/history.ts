import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ChatHistory, Retention } from "../../src/chat/history.ts";
import { redisChatHistory } from "../../src/chat/redis.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { createFeed } from "../../src/redis/feed.ts";
import { type Delivered, deliveriesOf } from "./chat.ts";
import { type FakeClock, fakeClock, settle } from "./clock.ts";
import { startWire, type Wire, type WireName } from "./wire.ts";

/** A started history, under a clock that stands still. */
export interface OpenHistory extends AsyncDisposable {
  readonly history: ChatHistory;
  readonly clock: FakeClock;
  readonly delivered: Delivered;
  /** How often events were missed. */
  readonly gaps: number;
  /** Resolves when some were. */
  readonly gap: Promise<void>;
  /** Waits for `work` while the feed's clock runs, so that it polls. */
  polling<T>(work: Promise<T>): Promise<T>;
}

/** A kind of history, and where it is stored. */
export interface Subject {
  open(retention?: Partial<Retention>): Promise<OpenHistory>;
  end(): PromiseLike<void>;
}

export async function openSqlite(
  path: string,
  retention?: Partial<Retention>,
): Promise<OpenHistory> {
  const clock = fakeClock();
  const history = sqliteChatHistory({ path, clock, retention });
  return {
    ...{ history, clock, delivered: deliveriesOf(history), gaps: 0 },
    gap: new Promise(() => {}),
    polling: (work) => work,
    [Symbol.asyncDispose]: () => history.close(),
  };
}

/** `deadlineMs`: of every command that doesn't wait inside Redis, by the machine's clock. */
export async function openRedisHistory(
  wire: Wire,
  name: WireName,
  { deadlineMs, ...retention }: Partial<Retention> & { deadlineMs?: number } = {},
): Promise<OpenHistory> {
  const clock = fakeClock();
  const feedClock = fakeClock();
  const transport = () => wire.transport(deadlineMs === undefined ? {} : { deadlineMs });
  const feed = createFeed({
    ...{ transport: transport(), clock: feedClock, log: () => {} },
    blocking: name === "native" ? wire.transport() : undefined,
  });
  const history = redisChatHistory({ transport: transport(), feed, clock, retention });
  const delivered = deliveriesOf(history);
  const gap = Promise.withResolvers<void>();
  let gaps = 0;
  feed.start({
    isNeeded: () => true,
    onGap() {
      gaps++;
      gap.resolve();
    },
  });
  await feed.ready();
  return {
    ...{ history, clock, delivered, gap: gap.promise },
    get gaps() {
      return gaps;
    },
    async polling(work) {
      let isDone = false;
      const done = () => {
        isDone = true;
      };
      work.then(done, done);
      while (!isDone) {
        feedClock.advance(100);
        await settle(4);
      }
      return work;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([history.close(), feed.close()]);
    },
  };
}

export async function inMemory(): Promise<Subject> {
  return { open: (retention) => openSqlite(":memory:", retention), async end() {} };
}

export async function inFile(): Promise<Subject> {
  const { path, end } = await newFile();
  return { open: (retention) => openSqlite(path, retention), end };
}

export async function inRedis(name: WireName): Promise<Subject> {
  const wire = await startWire(name);
  return {
    open: (retention) => openRedisHistory(wire, name, retention),
    end: () => wire[Symbol.asyncDispose](),
  };
}

/** A path at which there is no file yet, in a folder of its own that `end` deletes. */
export async function newFile(): Promise<{ path: string; end(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-chat-"));
  return {
    path: join(directory, "chat.sqlite"),
    end: () => rm(directory, { recursive: true, force: true }),
  };
}

export async function withFile(run: (path: string) => Promise<void>): Promise<void> {
  const file = await newFile();
  try {
    await run(file.path);
  } finally {
    await file.end();
  }
}
