import { describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startInstance, type TestInstance } from "../support/process.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import type { Frame, TestSocket } from "../support/socket.ts";
import { frameTo, idOf, type Who } from "../support/tab.ts";

const ROUNDS = 12;
/** Messages of each side in progress at once. */
const WINDOW = 20;
/** Acknowledgements in a round, at the least and at the most, after which the server is killed. */
const KILL_AFTER = [10, 100] as const;
const USER = "alice";

/** One side of the chat, through all the lives of the server. */
interface Side {
  readonly who: Who;
  readonly peer: string;
  /** Refs sent and not yet acknowledged. */
  readonly pending: Set<string>;
  /** By ref, the ids under which it was acknowledged: one, if all is well. */
  readonly acknowledged: Map<string, Set<string>>;
  sent: number;
}

function newSide(who: Who, peer: string): Side {
  return { who, peer, pending: new Set(), acknowledged: new Map(), sent: 0 };
}

/**
 * Sends again what was never acknowledged, and then new messages, always `WINDOW` of them in progress, until the
 * socket closes. With `isLast`: sends again whatever was ever sent, until all of it is acknowledged.
 */
async function load(
  side: Side,
  socket: TestSocket,
  { isLast, onAck }: { isLast: boolean; onAck: () => void },
): Promise<void> {
  const { promise: isDone, resolve: done } = Promise.withResolvers<void>();
  const say = (ref: string) => socket.send(frameTo(side.who, side.peer, ref, ref));
  const sayNew = () => {
    const ref = `${idOf(side.who)} ${side.sent++}`;
    side.pending.add(ref);
    say(ref);
  };
  const again = [...(isLast ? side.acknowledged.keys() : []), ...side.pending];
  for (const ref of again) side.pending.add(ref);
  socket.onFrame(({ type, ref, id }: Frame) => {
    if (type !== "ACK") return;
    side.acknowledged.set(ref, (side.acknowledged.get(ref) ?? new Set()).add(id));
    side.pending.delete(ref);
    onAck();
    if (!isLast && socket.socket.readyState === WebSocket.OPEN) sayNew();
    else if (side.pending.size === 0) done();
  });
  for (const ref of again) say(ref);
  if (!isLast) for (let n = again.length; n < WINDOW; n++) sayNew();
  else if (again.length === 0) done();
  await Promise.race([isDone, socket.closed]);
}

/** One life of the server: both sides write, until it is killed in the middle of it or, the last time, all is acknowledged. */
async function live(
  server: TestInstance,
  sides: readonly Side[],
  { killAfter }: { killAfter: number },
): Promise<void> {
  let acknowledged = 0;
  const isLast = killAfter === Number.POSITIVE_INFINITY;
  const onAck = () => {
    if (++acknowledged === killAfter) server.kill("SIGKILL");
  };
  const sockets = await Promise.all(
    sides.map(({ who }) =>
      "user" in who ? server.openUser(who.user) : server.openVisitor(who.cookie),
    ),
  );
  await Promise.all(
    sides.map((side, at) => load(side, sockets[at] as TestSocket, { isLast, onAck })),
  );
}

/** Each side's first message: without the visitor's the user can't write, without an answer the visitor not much. */
async function begin(server: TestInstance, { who, peer, acknowledged }: Side): Promise<void> {
  await using socket = await ("user" in who
    ? server.openUser(who.user)
    : server.openVisitor(who.cookie));
  const ref = `${idOf(who)} begins`;
  socket.send(frameTo(who, peer, ref, ref));
  const { id } = await socket.next(({ type }) => type === "ACK");
  acknowledged.set(ref, new Set([id]));
}

async function everything(server: TestInstance, visitor: string): Promise<Frame[]> {
  const all: Frame[] = [];
  for (;;) {
    const after = all.at(-1)?.id ?? "0";
    const path = `/api/chats/${visitor}/messages?limit=200&after=${after}`;
    const { body } = await server.ask(path, { user: USER });
    all.push(...body.messages);
    if (!body.more) return all;
  }
}

async function killOverAndOver(environment: Record<string, string>): Promise<void> {
  let cookie = "";
  let sides: readonly Side[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    await using server = await startInstance({ LOG_LEVEL: "info", ...environment });
    if (round === 0) {
      cookie = await server.visitorCookie();
      const visitor: Who = { cookie };
      sides = [newSide(visitor, USER), newSide({ user: USER }, idOf(visitor))];
      for (const side of sides) await begin(server, side);
    }
    if (round < ROUNDS) {
      const [least, most] = KILL_AFTER;
      const killAfter = least + Math.floor(Math.random() * (most - least));
      await live(server, sides, { killAfter });
      expect(await server.exited).toBe(-1);
      continue;
    }
    await live(server, sides, { killAfter: Number.POSITIVE_INFINITY });
    const kept = await everything(server, idOf({ cookie }));
    const ids = kept.map(({ id }) => Number(id));
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    const texts = kept.map(({ content }) => content);
    expect(new Set(texts).size).toBe(texts.length);
    const acknowledged = sides.flatMap((side) => [...side.acknowledged]);
    const idByText = new Map(kept.map(({ content, id }) => [content, id]));
    for (const [ref, ids] of acknowledged) expect([ref, ...ids]).toEqual([ref, idByText.get(ref)]);
    expect(texts).toHaveLength(acknowledged.length);
    const [chat] = (await server.ask("/api/chats", { user: USER })).body.chats;
    expect(chat.lastMessage.id).toBe(kept.at(-1)?.id);
    expect(chat.unread).toBe(texts.filter((text) => !text.startsWith(USER)).length);
  }
}

/** Time for all rounds on a busy machine, in milliseconds. */
const LIMIT_MS = 60_000;

describe("a server that is killed over and over under load keeps every acknowledged message, once", () => {
  test(
    "on SQLite",
    async () => {
      const directory = await mkdtemp(join(tmpdir(), "ws-ticket-crash-"));
      try {
        await killOverAndOver({ CHAT_DATABASE: join(directory, "chat.sqlite") });
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    },
    LIMIT_MS,
  );

  describeWith("redis-server")("with a Redis that isn't killed", () => {
    test(
      "on Redis",
      async () => {
        await using redis = await startRedis();
        await killOverAndOver({ REDIS_URL: redis.url });
      },
      LIMIT_MS,
    );
  });
});
