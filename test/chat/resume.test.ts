import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { ChatHistory } from "../../src/chat/history.ts";
import { redisChatHistory } from "../../src/chat/redis.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { createFeed } from "../../src/redis/feed.ts";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import { sharedTicketStore } from "../../src/gate/redis.ts";
import { begin, write } from "../support/chat.ts";
import { type FakeClock, fakeClock, underClock } from "../support/clock.ts";
import { startProxy, type TestProxy } from "../support/proxy.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { TestSocket } from "../support/socket.ts";
import { createTab, idOf, type Tab } from "../support/tab.ts";

const USER = "alice";

/** A history whose pages can be held back once they have been read. */
function withHeldPages(inner: ChatHistory): {
  history: ChatHistory;
  /** Holds back the next page; resolves when it has been read. */
  hold(): { read: Promise<void>; release(): void };
} {
  let held: (() => Promise<void>) | undefined;
  const history: ChatHistory = {
    ...inner,
    async messages(where, page) {
      const found = await inner.messages(where, page);
      await held?.();
      return found;
    },
  };
  return {
    history,
    hold() {
      const read = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      held = async () => {
        held = undefined;
        read.resolve();
        await released.promise;
      };
      return { read: read.promise, release: () => released.resolve() };
    },
  };
}

function contentsOf(tab: Tab, peer: string): string[] {
  return tab.messages(peer).map(({ content }) => content);
}

/** How often each message came over the tab's socket. */
function overSocket({ socket }: Tab): string[] {
  return (socket?.frames ?? []).flatMap(({ content }) => (content === undefined ? [] : [content]));
}

describe("a client that opens its socket first and then loads what it has missed", () => {
  const clock: FakeClock = fakeClock();
  const held = withHeldPages(sqliteChatHistory({ path: ":memory:", clock }));
  let server: TestServer;
  beforeAll(() => {
    server = startServer({
      ...{ history: held.history, clock, charactersPerMinute: 0, limits: { messagesPerSecond: 0 } },
    });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  async function newTabs(): Promise<{ writer: Tab; reader: Tab; user: string; visitor: string }> {
    const user = crypto.randomUUID();
    const writer = createTab(server, { cookie: await server.visitorCookie() });
    await writer.resume([]);
    return { writer, reader: createTab(server, { user }), user, visitor: idOf(writer.who) };
  }

  test("has the messages from before, during and after the request, each once", async () => {
    const { writer, reader, user, visitor } = await newTabs();
    await writer.say(user, "seen");
    await reader.resume([visitor]);
    await reader.leave();
    await writer.say(user, "while away");
    const page = held.hold();
    const resuming = reader.resume([visitor]);
    await page.read;
    await writer.say(user, "behind the response");
    await reader.socket?.next(({ content }) => content === "behind the response");
    page.release();
    await resuming;
    await writer.say(user, "afterwards");
    await reader.socket?.next(({ content }) => content === "afterwards");
    expect(contentsOf(reader, visitor)).toEqual([
      ...["seen", "while away", "behind the response", "afterwards"],
    ]);
    expect(overSocket(reader)).toEqual(["behind the response", "afterwards"]);
  });

  test("drops by its id a message that is both on the socket and in the response", async () => {
    const { writer, reader, user, visitor } = await newTabs();
    await writer.say(user, "one");
    await reader.resume([]);
    await writer.say(user, "two");
    await reader.socket?.next(({ content }) => content === "two");
    const answer = await server.ask(`/api/chats/${visitor}/messages?after=0`, { user });
    const [, two] = answer.body.messages;
    expect(reader.messages(visitor)).toEqual([two]);
  });

  test("continues where it was after 450 missed messages", async () => {
    const { reader, user, visitor, writer } = await newTabs();
    await begin(held.history, { user, visitor }, { atMs: clock.nowMs() });
    await writer.say(user, "seen");
    await reader.resume([visitor]);
    await reader.leave();
    const missed = Array.from({ length: 450 }, (_, n) => `${n}`);
    await Promise.all(
      missed.map((content) =>
        write(held.history, { user, visitor }, content, {
          atMs: clock.nowMs(),
        }),
      ),
    );
    await reader.resume([visitor]);
    expect(contentsOf(reader, visitor)).toEqual(["begin", "answer", "seen", ...missed]);
  });

  test("misses nothing while it reconnects 20 times during a conversation", async () => {
    const { writer, reader, user, visitor } = await newTabs();
    await begin(held.history, { user, visitor }, { atMs: clock.nowMs() });
    let isOver = false;
    const said = ["begin", "answer"];
    const writing = (async () => {
      while (!isOver) {
        said.push(`${said.length}`);
        await writer.say(user, said.at(-1) as string);
      }
    })();
    for (let round = 0; round < 20; round++) {
      await reader.resume([visitor]);
      await reader.leave();
    }
    isOver = true;
    await writing;
    await reader.resume([visitor]);
    expect(contentsOf(reader, visitor)).toEqual(said);
    expect(said.length).toBeGreaterThan(20);
  });
});

describeWith("redis-server")("on a server whose feed is late", () => {
  /** A server on a Redis behind a proxy of its own for the feed. */
  async function startBehind(redis: { url: string; port: number }): Promise<{
    server: TestServer;
    feedProxy: TestProxy;
    end(): Promise<void>;
  }> {
    const clock = fakeClock();
    const feedProxy = await startProxy(redis);
    const feed = createFeed({
      ...{ transport: nativeRedisTransport({ url: redis.url }), clock, log: () => {} },
      blocking: nativeRedisTransport({ url: feedProxy.url }),
    });
    const history = redisChatHistory({ transport: nativeRedisTransport(redis), feed, clock });
    const store = sharedTicketStore({ transport: nativeRedisTransport(redis), feed });
    const server = startServer({ history, store, clock, limits: { messagesPerSecond: 0 } });
    return {
      server,
      feedProxy,
      async end() {
        await server[Symbol.asyncDispose]();
        await feedProxy[Symbol.asyncDispose]();
      },
    };
  }

  test("a message that was in the response comes over the socket too, and is dropped; nothing is missing", async () => {
    await using redis = await startRedis();
    const [near, far] = await Promise.all([startBehind(redis), startBehind(redis)]);
    const writer = createTab(near.server, { cookie: await near.server.visitorCookie() });
    const reader = createTab(far.server, { user: USER });
    const visitor = idOf(writer.who);
    await writer.resume([]);
    await reader.resume([visitor]);
    await writer.say(USER, "before");
    await reader.socket?.next(({ content }) => content === "before");

    far.feedProxy.freeze();
    await writer.say(USER, "in the response");
    await reader.resume([visitor]);
    expect(contentsOf(reader, visitor)).toEqual(["before", "in the response"]);
    expect(overSocket(reader)).toEqual([]);
    await writer.say(USER, "after the response");
    far.feedProxy.thaw();
    await reader.socket?.next(({ content }) => content === "after the response");
    expect(contentsOf(reader, visitor)).toEqual([
      "before",
      "in the response",
      "after the response",
    ]);
    expect(overSocket(reader)).toEqual(["in the response", "after the response"]);
    await Promise.all([near.end(), far.end()]);
  }, 15_000);

  test("sockets end with 1012 when messages may be missing, and miss nothing when they are back", async () => {
    await using redis = await startRedis();
    const { server, feedProxy, end } = await startBehind(redis);
    const writer = createTab(server, { cookie: await server.visitorCookie() });
    const reader = createTab(server, { user: USER });
    const visitor = idOf(writer.who);
    await writer.resume([]);
    await reader.resume([visitor]);
    const { closed } = reader.socket as TestSocket;
    feedProxy.freeze();
    await writer.say(USER, "lost on the way");
    // As if thousands of others had followed.
    await redis.command("XTRIM", "ws-ticket:feed", "MAXLEN", "0");
    feedProxy.thaw();
    feedProxy.cut();
    expect(await underClock(server.clock, closed)).toMatchObject({ code: 1012 });
    await reader.resume([visitor]);
    expect(contentsOf(reader, visitor)).toEqual(["lost on the way"]);
    await end();
  }, 15_000);
});
