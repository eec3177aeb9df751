import { describe, expect, spyOn, test } from "bun:test";
import {
  type ChatHistory,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
} from "../../src/chat/history.ts";
import { REQUESTS_PER_MINUTE } from "../../src/chat/limits.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { begin, newVisitorId, write } from "../support/chat.ts";
import { type FakeClock, fakeClock, settle, underClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer, type TestServerOptions } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";

const USER = "alice";
/** What a message costs beside its characters. */
const MESSAGE_COST = 50;
const PER_MINUTE = 6_000;
/** What may be written at once. */
const BURST = 10 * PER_MINUTE;
/** From one page of an address to the next, in milliseconds. */
const PAGE_MS = 25;

/** A server with a history that a test can look into, and a chat with an answer. */
interface Scene extends AsyncDisposable {
  readonly server: TestServer;
  readonly history: ChatHistory;
  readonly clock: FakeClock;
  readonly cookie: string;
  readonly visitor: string;
}

async function setScene(options: TestServerOptions = {}): Promise<Scene> {
  const clock = fakeClock();
  const history = sqliteChatHistory({ path: ":memory:", clock });
  const server = startServer({
    ...{ clock, history, limits: { messagesPerSecond: 0 } },
    ...options,
  });
  const cookie = await server.visitorCookie();
  const visitor = visitorIdOf(cookie);
  await begin(history, { user: USER, visitor }, { atMs: clock.nowMs() });
  return {
    ...{ server, history, clock, cookie, visitor },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

let refs = 0;

/** Sends one message, and returns the code of the error; `undefined` when it was stored. */
async function codeOf(
  socket: TestSocket,
  frame: Record<string, unknown>,
): Promise<string | undefined> {
  const ref = `ref ${++refs}`;
  socket.send({ ...frame, ref });
  const { type, code } = await socket.next((one) => one.ref === ref);
  return type === "ACK" ? undefined : code;
}

/** Sends messages from all sockets in turn until one is refused, and returns how many were stored. */
async function flood(
  sockets: readonly TestSocket[],
  frame: Record<string, unknown>,
): Promise<number> {
  for (let stored = 0; ; stored++) {
    const code = await codeOf(sockets[stored % sockets.length] as TestSocket, frame);
    if (code === undefined) continue;
    expect(code).toBe("too_many_messages");
    return stored;
  }
}

describe("what somebody may write", () => {
  test("is counted over all sockets, also later ones, and grows back in time", async () => {
    await using scene = await setScene({ charactersPerMinute: PER_MINUTE });
    const { server, clock, visitor } = scene;
    const frame = { type: "USER_TO_ANON", to: visitor, content: "x".repeat(3_950) };
    const sockets = await Promise.all(Array.from({ length: 20 }, () => server.openUser(USER)));
    expect(await flood(sockets, frame)).toBe(BURST / 4_000);
    for (const socket of sockets) expect(await codeOf(socket, frame)).toBe("too_many_messages");
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
    // A minute's worth is one and a half of them.
    for (const [ms, stored] of [
      [0, 0],
      [60_000, 1],
      [20_000, 1],
      [600_000, BURST / 4_000],
      [3_600_000, BURST / 4_000],
    ] as const) {
      clock.advance(ms);
      await using later = await server.openUser(USER);
      expect(await flood([later], frame)).toBe(stored);
    }
  });

  test("is a quarter for a visitor, and each one's own", async () => {
    await using scene = await setScene({ charactersPerMinute: PER_MINUTE });
    const { server, visitor, cookie } = scene;
    const content = "x".repeat(950);
    await using theirs = await server.openVisitor(cookie);
    await using mine = await server.openUser(USER);
    const toUser = { type: "ANON_TO_USER", to: USER, content };
    expect(await flood([theirs], toUser)).toBe(BURST / 4 / 1_000);
    expect(await flood([mine], { type: "USER_TO_ANON", to: visitor, content })).toBe(BURST / 1_000);
    await using other = await server.openVisitor();
    expect(await codeOf(other, toUser)).toBeUndefined();
  });

  test("counts short messages, too: each costs 50 characters more than it has", async () => {
    await using scene = await setScene({ charactersPerMinute: PER_MINUTE });
    await using socket = await scene.server.openUser(USER);
    const frame = { type: "USER_TO_ANON", to: scene.visitor, content: "x" };
    expect(await flood([socket], frame)).toBe(Math.floor(BURST / (1 + MESSAGE_COST)));
  });

  test("isn't used up by what is refused", async () => {
    await using scene = await setScene({ charactersPerMinute: PER_MINUTE });
    await using socket = await scene.server.openUser(USER);
    const long = { type: "USER_TO_ANON", to: scene.visitor, content: "x".repeat(3_950) };
    expect(await flood([socket], long)).toBe(BURST / 4_000);
    for (let n = 0; n < 50; n++) expect(await codeOf(socket, long)).toBe("too_many_messages");
    scene.clock.advance(40_000);
    expect(await codeOf(socket, long)).toBeUndefined();
  });

  test("is 40,000 characters a minute for a user by default, and unlimited with 0", async () => {
    for (const charactersPerMinute of [undefined, 0]) {
      await using scene = await setScene(
        charactersPerMinute === undefined ? {} : { charactersPerMinute },
      );
      await using socket = await scene.server.openUser(USER);
      const frame = { type: "USER_TO_ANON", to: scene.visitor, content: "x".repeat(3_950) };
      const codes: (string | undefined)[] = [];
      for (let n = 0; n < 101; n++) codes.push(await codeOf(socket, frame));
      expect(codes.slice(0, 100).filter(Boolean)).toEqual([]);
      expect(codes[100]).toBe(charactersPerMinute === 0 ? undefined : "too_many_messages");
    }
  });

  test("with an option that is no such number, createChat throws", () => {
    for (const charactersPerMinute of [-1, 0.5, Number.NaN, 1_000_000_001, "7" as never]) {
      expect(() => startServer({ charactersPerMinute })).toThrow("charactersPerMinute");
    }
  });
});

async function visitorFrom(server: TestServer, address: string, cookie?: string) {
  const Cookie = cookie ?? (await server.visitorCookie());
  const url = `${server.origin.replace("http", "ws")}/ws/chat`;
  const headers = { Cookie, Origin: server.origin, "X-Forwarded-For": address };
  const socket = openSocket(url, headers);
  await socket.opened;
  return socket;
}

describe("what visitors of one address may write", () => {
  test("is as much a minute as ten of them may, however many cookies it has and whoever answers", async () => {
    await using scene = await setScene({ charactersPerMinute: PER_MINUTE, trustProxy: 1 });
    const { server, history, clock } = scene;
    const frame = { type: "ANON_TO_USER", to: USER, content: "x".repeat(950) };
    let stored = 0;
    for (let n = 0; n < 12; n++) {
      const cookie = await server.visitorCookie();
      await begin(history, { user: USER, visitor: visitorIdOf(cookie) }, { atMs: clock.nowMs() });
      await using socket = await visitorFrom(server, "192.0.2.1", cookie);
      // Some of each, and at the end as much as is left.
      for (let m = 0; m < 2; m++) if ((await codeOf(socket, frame)) === undefined) stored++;
    }
    expect(stored).toBe((10 * PER_MINUTE) / 4 / 1_000);
    await using elsewhere = await visitorFrom(server, "192.0.2.2", scene.cookie);
    expect(await codeOf(elsewhere, frame)).toBeUndefined();
    await using here = await visitorFrom(server, "192.0.2.1", scene.cookie);
    expect(await codeOf(here, frame)).toBe("too_many_messages");
    // A tenth of a minute's worth of ten visitors.
    clock.advance(6_000);
    expect(await flood([here], frame)).toBe(1);
    // Nothing was taken from what each may write.
    await using moved = await visitorFrom(server, "192.0.2.3", scene.cookie);
    expect(await flood([moved], frame)).toBe(BURST / 4 / 1_000 - 2);
  });

  test("has no limit on loopback, where a proxy may speak for many", async () => {
    await using scene = await setScene({ charactersPerMinute: 40 });
    const { server, history, clock } = scene;
    for (let n = 0; n < 12; n++) {
      const cookie = await server.visitorCookie();
      await begin(history, { user: USER, visitor: visitorIdOf(cookie) }, { atMs: clock.nowMs() });
      await using socket = await server.openVisitor(cookie);
      const frame = { type: "ANON_TO_USER", to: USER, content: "x".repeat(50) };
      expect(await codeOf(socket, frame)).toBeUndefined();
    }
  });
});

describe("messages that nobody has answered", () => {
  /** So many in ten minutes from one address. */
  const PER_ADDRESS = 300;

  /** Lets visitors from an address write to as many users as each may, so many messages in all. */
  async function writeFrom(server: TestServer, address: string, count: number): Promise<void> {
    for (let left = count; left > 0; left -= MAX_UNANSWERED * MAX_UNANSWERED_MESSAGES) {
      const most = Math.min(left, MAX_UNANSWERED * MAX_UNANSWERED_MESSAGES);
      await using socket = await visitorFrom(server, address);
      for (let n = 0; n < most; n++) {
        const to = `user ${n % MAX_UNANSWERED}`;
        const frame = { type: "ANON_TO_USER", to, content: "x" };
        expect(await codeOf(socket, frame)).toBeUndefined();
      }
    }
  }

  test("are limited per address, however many cookies it has; answered visitors go on", async () => {
    await using scene = await setScene({ trustProxy: 1 });
    const { server, clock, cookie } = scene;
    const hello = { type: "ANON_TO_USER", to: USER, content: "x" };
    await writeFrom(server, "192.0.2.1", PER_ADDRESS);
    await using next = await visitorFrom(server, "192.0.2.1");
    expect(await codeOf(next, hello)).toBe("too_many_messages");
    await using answered = await visitorFrom(server, "192.0.2.1", cookie);
    expect(await codeOf(answered, hello)).toBeUndefined();
    await using elsewhere = await visitorFrom(server, "192.0.2.2");
    expect(await codeOf(elsewhere, hello)).toBeUndefined();
    clock.advance(600_000 / PER_ADDRESS - 1);
    expect(await codeOf(next, hello)).toBe("too_many_messages");
    clock.advance(1);
    expect(await codeOf(next, hello)).toBeUndefined();
    expect(await codeOf(next, hello)).toBe("too_many_messages");
  });

  test("are limited per address while many are on their way at once", async () => {
    await using scene = await setScene({ trustProxy: 1 });
    const { server } = scene;
    await writeFrom(server, "192.0.2.1", PER_ADDRESS - 10);
    await using one = await visitorFrom(server, "192.0.2.1");
    await using other = await visitorFrom(server, "192.0.2.1");
    const outcomes = await Promise.all(
      [one, other].flatMap((socket) =>
        Array.from({ length: 15 }, async (_, n) => {
          socket.send({ type: "ANON_TO_USER", to: USER, content: "x", ref: String(n) });
          return (await socket.next(({ ref }) => ref === String(n))).type as string;
        }),
      ),
    );
    expect(outcomes.filter((type) => type === "ACK")).toHaveLength(10);
  });

  test("are limited per address while some are stored and others are still on their way", async () => {
    const inner = sqliteChatHistory({ path: ":memory:", clock: fakeClock() });
    let waiting: (() => void)[] | undefined;
    const history: ChatHistory = {
      ...inner,
      async append(draft) {
        if (waiting) await new Promise<void>((resolve) => waiting?.push(resolve));
        return inner.append(draft);
      },
    };
    await using scene = await setScene({ trustProxy: 1, history });
    await writeFrom(scene.server, "192.0.2.1", PER_ADDRESS - 3);
    await using socket = await visitorFrom(scene.server, "192.0.2.1");
    const answers: Promise<string | undefined>[] = [];
    const send = async (count: number) => {
      const before = waiting?.length ?? 0;
      const frame = { type: "ANON_TO_USER", to: USER, content: "x" };
      for (let n = 0; n < count; n++) answers.push(codeOf(socket, frame));
      while (waiting && waiting.length < before + count) await settle(1);
    };
    waiting = [];
    await send(2);
    waiting.shift()?.();
    expect(await answers[0]).toBeUndefined();
    await send(2);
    for (const store of waiting) store();
    expect(await Promise.all(answers)).toEqual([
      ...[undefined, undefined, undefined, "too_many_messages"],
    ]);
  });

  test("don't count per address on loopback, where a proxy may speak for many", async () => {
    await using scene = await setScene();
    await writeFrom(scene.server, "192.0.2.1", PER_ADDRESS + 50);
  });

  test("count neither when they are refused nor when they are sent again, and answers not at all", async () => {
    await using scene = await setScene({ trustProxy: 1 });
    const { server, history, visitor } = scene;
    await using socket = await visitorFrom(server, "192.0.2.1");
    await using answering = await server.openUser(USER);
    const answer = { type: "USER_TO_ANON", to: visitor, content: "x" };
    for (let n = 0; n < PER_ADDRESS; n++) {
      socket.send({ type: "ANON_TO_USER", to: "bob", content: "x", ref: "same" });
      await socket.next(({ ref }) => ref === "same");
    }
    const users = Array.from({ length: MAX_UNANSWERED }, (_, n) => `user ${n}`);
    const [one = ""] = users;
    for (let n = 0; n < MAX_UNANSWERED_MESSAGES; n++) {
      expect(await codeOf(socket, { type: "ANON_TO_USER", to: one, content: "x" })).toBeUndefined();
    }
    for (let n = 0; n < PER_ADDRESS; n++) {
      expect(await codeOf(socket, { type: "ANON_TO_USER", to: one, content: "x" })).toBe(
        "too_many_messages",
      );
      expect(await codeOf(answering, answer)).toBeUndefined();
    }
    await writeFrom(server, "192.0.2.1", PER_ADDRESS - MAX_UNANSWERED_MESSAGES - 1);
    await using last = await visitorFrom(server, "192.0.2.1");
    expect(await codeOf(last, { type: "ANON_TO_USER", to: USER, content: "x" })).toBe(
      "too_many_messages",
    );
    expect(await history.spendRequests("anybody", 1)).toBe(0);
  });
});

describe("read marks by frames", () => {
  const MARKS_PER_MINUTE = 600;

  async function mark(socket: TestSocket, frame: Record<string, unknown>) {
    const ref = `mark ${++refs}`;
    socket.send({ type: "MARK_AS_READ", ref, ...frame });
    // What isn't answered has worked by the time that the next frame is.
    socket.send({ type: "?", ref: "after" });
    await socket.next((one) => one.ref === "after");
    return socket.frames.find((one) => one.ref === ref)?.code as string | undefined;
  }

  test("are limited by how many chats they mark, over all sockets", async () => {
    await using scene = await setScene();
    const { server, history, clock, cookie, visitor } = scene;
    for (let n = 1; n < 6; n++) {
      const where = { user: `user ${n}`, visitor };
      await write(history, where, "x", { atMs: clock.nowMs() });
    }
    const sockets = [await server.openVisitor(cookie), await server.openVisitor(cookie)];
    const [one, two] = sockets as [TestSocket, TestSocket];
    // Six chats each.
    for (let n = 0; n < MARKS_PER_MINUTE / 6; n++) {
      expect(await mark(n % 2 ? one : two, { chatId: visitor })).toBeUndefined();
    }
    expect(await mark(one, { chatId: visitor, to: USER })).toBe("too_many_messages");
    expect(await mark(two, { chatId: visitor, to: USER })).toBe("too_many_messages");
    // Nor are all chats looked up for it.
    const lists = spyOn(history, "chats");
    const spending = spyOn(history, "spendRequests");
    expect(await mark(two, { chatId: visitor })).toBe("too_many_messages");
    expect(lists).not.toHaveBeenCalled();
    expect(spending).not.toHaveBeenCalled();
    lists.mockRestore();
    spending.mockRestore();
    await using other = await server.openUser(USER);
    expect(await mark(other, { chatId: visitor })).toBeUndefined();
    clock.advance(99);
    expect(await mark(one, { chatId: visitor, to: USER })).toBe("too_many_messages");
    clock.advance(1);
    expect(await mark(one, { chatId: visitor, to: USER })).toBeUndefined();
    expect(await mark(one, { chatId: visitor })).toBe("too_many_messages");
    clock.advance(600);
    expect(await mark(one, { chatId: visitor })).toBeUndefined();
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
  });
});

test("read marks of somebody without any chat are limited, too", async () => {
  await using scene = await setScene();
  const { server } = scene;
  const cookie = await server.visitorCookie();
  const chatId = visitorIdOf(cookie);
  await using socket = await server.openVisitor(cookie);
  const codes: unknown[] = [];
  for (let n = 0; n < 602; n++) {
    socket.send({ type: "MARK_AS_READ", chatId, ref: `${n}` });
    codes.push((await socket.next(({ ref }) => ref === `${n}`)).code);
  }
  const expected = [
    ...Array<string>(600).fill("not_found"),
    ...Array<string>(2).fill("too_many_messages"),
  ];
  expect(codes).toEqual(expected);
});

test("read marks by the visitors of one address are limited together", async () => {
  const PER_ADDRESS = 3_000;
  await using scene = await setScene({ trustProxy: 1 });
  const { server } = scene;
  const marks = async (address: string, count: number) => {
    const cookie = await server.visitorCookie();
    await using socket = await visitorFrom(server, address, cookie);
    for (let n = 0; n < count; n++) {
      socket.send({ type: "MARK_AS_READ", chatId: visitorIdOf(cookie), ref: `${n}` });
    }
    const last = await socket.next(({ ref }) => ref === `${count - 1}`);
    return last.code;
  };
  for (let n = 0; n < 5; n++) expect(await marks("192.0.2.1", PER_ADDRESS / 5)).toBe("not_found");
  expect(await marks("192.0.2.1", 1)).toBe("too_many_messages");
  expect(await marks("192.0.2.2", 1)).toBe("not_found");
});

/** What the longest page costs, in requests. */
const MOST = 9;

describe("long pages", () => {
  async function requestsLeft(history: ChatHistory, key: string): Promise<number> {
    let left = 0;
    while ((await history.spendRequests(key, 1)) === 0) left++;
    return left;
  }

  test("of messages cost as many requests as they have 8,000 characters, and one more", async () => {
    await using scene = await setScene();
    const { server, history, clock, visitor } = scene;
    const path = `/api/chats/${visitor}/messages`;
    let spent = 0;
    for (const [messages, cost] of [
      [0, 1],
      [1, 1],
      [1, 2],
      [4, 4],
      // As many as fit into the longest page.
      [200, 8],
    ] as const) {
      for (let n = 0; n < messages; n++) {
        const content = "x".repeat(4_000);
        await write(history, { user: USER, visitor }, content, { atMs: clock.nowMs() });
      }
      expect((await server.ask(path, { user: USER })).status).toBe(200);
      spent += cost;
    }
    expect(await requestsLeft(history, `user:${USER}`)).toBe(REQUESTS_PER_MINUTE - spent);
  });

  test("of chats cost one more for each 25", async () => {
    await using scene = await setScene();
    const { server, history, clock } = scene;
    for (let n = 0; n < 59; n++) {
      const where = { user: USER, visitor: newVisitorId() };
      await write(history, where, "x", { atMs: clock.nowMs() });
    }
    const { body } = await server.ask("/api/chats?limit=200", { user: USER });
    expect(body.chats).toHaveLength(60);
    expect(await requestsLeft(history, `user:${USER}`)).toBe(REQUESTS_PER_MINUTE - 3);
  });

  test("at the same time cost no more than there is", async () => {
    await using scene = await setScene();
    const { server, history, clock, visitor } = scene;
    for (let n = 0; n < 20; n++) {
      const content = "x".repeat(4_000);
      await write(history, { user: USER, visitor }, content, { atMs: clock.nowMs() });
    }
    const path = `/api/chats/${visitor}/messages`;
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => server.ask(path, { user: USER })),
    );
    const pages = answers.filter(({ status }) => status === 200).length;
    expect(pages).toBeGreaterThanOrEqual(Math.floor(REQUESTS_PER_MINUTE / MOST));
    expect(pages).toBeLessThanOrEqual(REQUESTS_PER_MINUTE / 8);
  });

  test("are put together one by one, with other work in between", async () => {
    await using scene = await setScene();
    const { server, history, visitor } = scene;
    let turn = 0;
    let isOver = false;
    const count = () => void (++turn && !isOver && setImmediate(count));
    count();
    const turns: number[] = [];
    const { messages } = history;
    const pages = spyOn(history, "messages").mockImplementation((...args) => {
      turns.push(turn);
      return messages(...args);
    });
    const path = `/api/chats/${visitor}/messages`;
    await Promise.all(Array.from({ length: 30 }, () => server.ask(path, { user: USER })));
    isOver = true;
    pages.mockRestore();
    expect(turns).toHaveLength(30);
    expect(new Set(turns).size).toBe(30);
  });

  describe("of one address", () => {
    const from = (address: string) => ({ headers: { "X-Forwarded-For": address } });

    /** So many requests for a page at the same time, with the statuses of the responses so far. */
    function readPages(
      server: TestServer,
      count: number,
      { address = "192.0.2.1", user = USER } = {},
    ) {
      const statuses: number[] = [];
      const read = async () => {
        statuses.push((await server.ask("/api/chats", { user, ...from(address) })).status);
      };
      return { statuses, all: Promise.all(Array.from({ length: count }, read)) };
    }

    /** Lets nobody spend anything before so many want to. */
    function holdUntil(history: ChatHistory, count: number) {
      const all = Promise.withResolvers<void>();
      const { spendRequests } = history;
      let wanted = 0;
      return spyOn(history, "spendRequests").mockImplementation(async (key, cost) => {
        if (cost > 0 && ++wanted === count) all.resolve();
        if (cost > 0) await all.promise;
        return spendRequests(key, cost);
      });
    }

    test("are put together 10 at once and then 40 a second, and nobody else waits", async () => {
      await using scene = await setScene({ trustProxy: 1 });
      const { server, history, clock } = scene;
      using started = spyOn(history, "chats");
      holdUntil(history, 13);
      const { statuses, all } = readPages(server, 13);
      while (statuses.length < 10) await settle(1);
      await settle();
      expect(started).toHaveBeenCalledTimes(10);
      await readPages(server, 1, { address: "192.0.2.2" }).all;
      // What is no page doesn't wait.
      const gone = `/api/chats/${newVisitorId()}`;
      const asking = { user: USER, ...from("192.0.2.1") };
      expect((await server.ask(gone, { method: "DELETE", ...asking })).status).toBe(404);
      for (let n = 1; n <= 3; n++) {
        clock.advance(24);
        await settle();
        expect(started).toHaveBeenCalledTimes(10 + n);
        clock.advance(1);
        while (statuses.length < 10 + n) await settle(1);
      }
      await all;
      expect(new Set(statuses)).toEqual(new Set([200]));
    });

    test("are refused where their turn would be two seconds away, and cost nothing then", async () => {
      await using scene = await setScene({ trustProxy: 1 });
      const { server, history, clock } = scene;
      // Even when all of them get to their turns at the same moment.
      const spent = holdUntil(history, 92);
      const readers = Array.from({ length: 4 }, (_, n) => {
        return readPages(server, 23, { user: `reader ${n}` });
      });
      const all = Promise.all(readers.map((reader) => reader.all));
      const statuses = () => readers.flatMap((reader) => reader.statuses);
      while (statuses().length < 13) await settle(1);
      await underClock(clock, all, { stepMs: 25, limitMs: 2_000 });
      expect(statuses().filter((status) => status === 200)).toHaveLength(89);
      expect(statuses().filter((status) => status === 429)).toHaveLength(3);
      // An empty page costs one.
      expect(spent.mock.calls.reduce((sum, [, cost]) => sum + cost, 0)).toBe(89);
      clock.advance(PAGE_MS);
      await readPages(server, 1, { user: "early" }).all;
    });
  });

  test("count for their address, too", async () => {
    await using scene = await setScene({ trustProxy: 1 });
    const { server, history, clock } = scene;
    const headers = { "X-Forwarded-For": "192.0.2.1" };
    const statuses: number[] = [];
    for (let person = 0; person < 7; person++) {
      const chat = { user: `user ${person}`, visitor: newVisitorId() };
      for (let n = 0; n < 16; n++) {
        await write(history, chat, "x".repeat(4_000), { atMs: clock.nowMs() });
      }
      for (let n = 0; n < 66; n++) {
        const path = `/api/chats/${chat.visitor}/messages`;
        statuses.push((await server.ask(path, { user: chat.user, headers })).status);
        // Until its turn; a little more is allowed then, too.
        clock.advance(PAGE_MS);
      }
    }
    const left = (3_000 * PAGE_MS * statuses.length) / 60_000;
    expect(statuses.filter((status) => status === 200).length).toBeLessThanOrEqual(
      (3_000 + left) / MOST + 1,
    );
    expect(statuses.slice(0, 330)).toEqual(Array<number>(330).fill(200));
  });
});

describe("requests", () => {
  test("are limited per identity, whatever they are for: beyond it 429 with the time to wait", async () => {
    await using scene = await setScene();
    const { server, clock, cookie, visitor } = scene;
    const peer = `/api/chats/${visitor}`;
    const ways = [
      ["GET", "/api/chats"],
      ["GET", `${peer}/messages`],
      ["POST", `${peer}/read`],
      ["PUT", `${peer}/block`],
      ["DELETE", `${peer}/block`],
      ["DELETE", `/api/chats/${newVisitorId()}`],
    ] as const;
    const send = async (n: number, asking: { user: string } | { cookie: string }) => {
      const [method, path] = ways[n % ways.length] as (typeof ways)[number];
      return server.ask(path, { method, ...asking });
    };
    const remove = () => server.ask(peer, { method: "DELETE", user: USER });
    const statuses: number[] = [];
    for (let n = 0; n < REQUESTS_PER_MINUTE - MOST; n++) {
      statuses.push((await send(n, { user: USER })).status);
    }
    // For a page there has to be as much left as the longest one costs.
    for (let n = 0; n < MOST; n++) statuses.push((await remove()).status);
    expect([...new Set(statuses)].toSorted()).toEqual([200, 204, 404]);
    for (let n = 0; n < ways.length; n++) {
      const { status, headers, body } = await send(n, { user: USER });
      expect([status, body.code, headers.get("retry-after")]).toEqual([
        ...[429, "too_many_requests", "1"],
      ]);
    }
    // Neither another user nor the visitor.
    expect((await server.ask("/api/chats", { user: "bob" })).status).toBe(200);
    expect((await server.ask("/api/chats", { cookie })).status).toBe(200);
    clock.advance(60_000 / REQUESTS_PER_MINUTE);
    expect((await remove()).status).toBe(404);
    expect((await remove()).status).toBe(429);
  });

  test("are limited per address, those with a credential", async () => {
    const PER_ADDRESS = 3_000;
    await using scene = await setScene({ trustProxy: 1 });
    const { server, history, clock, visitor } = scene;
    const token = await server.token(USER);
    const status = async (address: string, credential: Record<string, string> = {}) => {
      const headers = { "X-Forwarded-For": address, ...credential };
      const url = `${server.origin}/api/chats/${visitor}/read`;
      return (await fetch(url, { method: "POST", headers })).status;
    };
    const readers = await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        await begin(history, { user: `u${n}`, visitor }, { atMs: clock.nowMs() });
        return { Authorization: `Bearer ${await server.token(`u${n}`)}` };
      }),
    );
    const statuses = async (count: number, headers?: Record<string, string>) => {
      const some = Array.from({ length: count }, () => status("192.0.2.1", headers));
      return new Set(await Promise.all(some));
    };
    // Those without a credential use up nothing of what others may do.
    expect(await statuses(100)).toEqual(new Set([401]));
    for (let n = 0; n < PER_ADDRESS; n += 50) {
      expect(await statuses(50, readers[(n / 50) % readers.length])).toEqual(new Set([200]));
    }
    expect(await status("192.0.2.1")).toBe(401);
    expect(await status("192.0.2.1", { Authorization: `Bearer ${token}` })).toBe(429);
    expect(await status("192.0.2.2", { Authorization: `Bearer ${token}` })).toBe(200);
    clock.advance(60_000 / PER_ADDRESS);
    expect(await status("192.0.2.1", { Authorization: `Bearer ${token}` })).toBe(200);
    expect(await status("192.0.2.1", { Authorization: `Bearer ${token}` })).toBe(429);
  });

  test("for a block beyond the limit of blocks get 429", async () => {
    const clock = fakeClock();
    const inner = sqliteChatHistory({ path: ":memory:", clock });
    const history: ChatHistory = { ...inner, setBlocked: async () => "too_many" };
    await using server = startServer({ clock, history });
    const path = `/api/chats/${newVisitorId()}/block`;
    const { status, body } = await server.ask(path, { method: "PUT", user: USER });
    expect([status, body.code]).toEqual([429, "too_many_requests"]);
  });
});
