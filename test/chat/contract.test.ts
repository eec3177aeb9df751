import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Database } from "bun:sqlite";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type ChatEvent,
  type ChatHistory,
  MAX_UNANSWERED,
  REF_TTL_MS,
  type Retention,
  type Side,
} from "../../src/chat/history.ts";
import type { Chat } from "../../src/wire/frames.ts";
import { redisChatHistory } from "../../src/chat/redis.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { createFeed } from "../../src/redis/feed.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";
import { type Listener, listenTo, newChat, newVisitorId, write } from "../support/chat.ts";
import { startInstance, startProcess } from "../support/process.ts";
import { describeWith } from "../support/require.ts";
import { startWire, type Wire, type WireName, WIRE_NAMES } from "../support/wire.ts";

const DAY_MS = 86_400_000;

interface OpenLog extends AsyncDisposable {
  readonly chat: ChatHistory;
  readonly clock: FakeClock;
  readonly told: Listener;
  /** How often it was said that events were missed. */
  readonly gaps: number;
}

/** A kind of log, and where it keeps things. */
interface Subject {
  open(retention?: Partial<Retention>): Promise<OpenLog>;
  /** Redis only. */
  readonly wire?: Wire;
  end(): PromiseLike<void>;
}

async function openSqlite(path: string, retention?: Partial<Retention>): Promise<OpenLog> {
  const clock = fakeClock();
  const chat = sqliteChatHistory({ path, clock, retention });
  return { chat, clock, told: listenTo(chat), gaps: 0, [Symbol.asyncDispose]: () => chat.close() };
}

async function openRedis(
  wire: Wire,
  name: WireName,
  retention?: Partial<Retention>,
): Promise<OpenLog> {
  const clock = fakeClock();
  const blocking = name === "native" ? wire.transport() : undefined;
  const feed = createFeed({ transport: wire.transport(), blocking, clock, log: () => {} });
  const chat = redisChatHistory({ transport: wire.transport(), feed, clock, retention });
  const told = listenTo(chat);
  let gaps = 0;
  feed.start({ hasListeners: () => true, onGap: () => void gaps++ });
  await feed.ready();
  return {
    ...{ chat, clock, told },
    get gaps() {
      return gaps;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([chat.close(), feed.close()]);
    },
  };
}

async function inMemory(): Promise<Subject> {
  return { open: (retention) => openSqlite(":memory:", retention), async end() {} };
}

async function newFile(): Promise<{ path: string; end(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), "ws-ticket-chat-"));
  return {
    path: join(directory, "chat.sqlite"),
    end: () => rm(directory, { recursive: true, force: true }),
  };
}

async function inFile(): Promise<Subject> {
  const { path, end } = await newFile();
  return { open: (retention) => openSqlite(path, retention), end };
}

async function inRedis(name: WireName): Promise<Subject> {
  const wire = await startWire(name);
  return {
    wire,
    open: (retention) => openRedis(wire, name, retention),
    end: () => wire[Symbol.asyncDispose](),
  };
}

/** Text that some log could give back as something else, or not at all. */
const AWKWARD_TEXTS: readonly (readonly [what: string, text: string])[] = [
  ["a number", "123"],
  ["a number that loses digits", "123456789012345678901234567890"],
  ["a number with leading zeros", "007"],
  ["a number in exponent form", "1e999"],
  ["a fraction with a trailing zero", "1.0"],
  ["true", "true"],
  ["null", "null"],
  ["undefined", "undefined"],
  ["a JSON object", '{"kind":"read","by":"user"}'],
  ["a JSON array", '["a","b"]'],
  ["a JSON string", '"quoted"'],
  ["the status of Redis", "OK"],
  ["base64", "aGVsbG8="],
  ["white space at both ends", "  hello \n"],
  ["line breaks of the protocol", "a\n$3\nfoo\n"],
  ["SQL", "'); DROP TABLE messages; --"],
  ["Lua", "]] .. redis.call('FLUSHALL') .. [["],
  ["the name of a field", "from"],
  ["emoji, combining marks and a change of direction", "👩‍👩‍👧 é Ω 漢字 \u202e"],
  ["a separator of lines", "a\u2028b"],
  ["a byte order mark", "\ufeffhello"],
  ["a property of every object", "__proto__"],
  ["4,000 characters of three bytes", "漢".repeat(4_000)],
  ["4,000 quotation marks", '"'.repeat(4_000)],
];

/** Ids that a key, a pattern or a query could take apart. */
const AWKWARD_USERS: readonly (readonly [what: string, user: string])[] = [
  ["a colon", "a:b"],
  ["nothing but a colon", ":"],
  ["an asterisk", "*"],
  ["a pattern", "[a-z]?*"],
  ["spaces", " a  b "],
  ["a percent sign", "100%"],
  ["an underscore alone", "_"],
  ["quotes", `'"\``],
  ["a backslash", "a\\"],
  ["braces, as for a hash slot", "{a}b"],
  ["a number", "1"],
  ["the same number with zeros", "01"],
  ["a property of every object", "__proto__"],
  ["a method of every object", "constructor"],
  ["an e-mail address", "alice@example.com"],
  ["capitals", "ALICE@example.com"],
  ["an accent in one character", "\u00e9"],
  ["the same accent in two", "e\u0301"],
  ["255 characters of four bytes", "𝕏".repeat(127)],
];

function contract(start: () => Promise<Subject>): void {
  let subject: Subject;
  beforeAll(async () => {
    subject = await start();
  });
  afterAll(() => subject.end());

  const all = { limit: 200 };
  const contents = async (chat: ChatHistory, where: Chat) =>
    (await chat.messages(where, all))?.messages.map(({ content }) => content);
  const list = async (chat: ChatHistory, side: Side, id: string) => chat.chats({ side, id }, all);

  test("keeps a message as it was written, for both sides", async () => {
    await using log = await subject.open();
    const where = newChat();
    const atMs = Date.parse("2026-02-03T04:05:06.789Z");
    const kept = await log.chat.append({
      ...{ chat: where, from: "visitor", content: "Hello", nickname: "Vis", ref: "r", atMs },
    });
    expect(kept).toEqual({ ok: true, id: expect.stringMatching(/^[1-9]\d*$/), atMs });
    const message = {
      ...{ type: "ANON_TO_USER", from: where.visitor, to: where.user, content: "Hello" },
      ...{ nickname: "Vis", timestamp: "2026-02-03T04:05:06.789Z", chatId: where.visitor },
      id: kept.ok && kept.id,
    };
    expect(await log.chat.messages(where, all)).toEqual({
      messages: [message],
      readUpTo: { user: "0", visitor: "0" },
    } as never);
    await log.told.has(where, 1);
    const [event, ...others] = log.told.events.filter(({ chat }) => chat.user === where.user);
    const { frame = JSON.stringify(message), ...told } = event as ChatEvent & { frame?: string };
    expect(told as unknown).toEqual({ kind: "message", chat: where, message });
    expect(JSON.parse(frame)).toEqual(message);
    expect(others).toEqual([]);
  });

  test("keeps a message without a nickname without one", async () => {
    await using log = await subject.open();
    const where = newChat();
    await write(log.chat, where, "Hello", { from: "user" });
    const page = await log.chat.messages(where, all);
    expect(page?.messages[0]).toMatchObject({
      ...{ type: "USER_TO_ANON", from: where.user, to: where.visitor, chatId: where.visitor },
    });
    expect(page?.messages[0]).not.toHaveProperty("nickname");
  });

  test("gives ids that rise, over all chats and after a deletion", async () => {
    await using log = await subject.open();
    const [one, two] = [newChat(), newChat()];
    const ids: number[] = [];
    for (let round = 0; round < 3; round++) {
      ids.push(Number(await write(log.chat, one, "a")), Number(await write(log.chat, two, "b")));
      await log.chat.remove(two);
    }
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    expect(new Set(ids).size).toBe(6);
  });

  describe("a ref that comes again", () => {
    test("is the same message, with the first one's id, time and text", async () => {
      await using log = await subject.open();
      const where = newChat();
      const draft = { chat: where, from: "visitor", ref: "r" } as const;
      const first = await log.chat.append({ ...draft, content: "first", atMs: 1_800_000_000_000 });
      const again = await log.chat.append({ ...draft, content: "other", atMs: 1_800_000_005_000 });
      expect(again).toEqual(first);
      await write(log.chat, where, "last");
      expect(await contents(log.chat, where)).toEqual(["first", "last"]);
      await log.told.has(where, 2);
      expect(log.told.of(where)).toEqual(["first", "last"]);
      expect((await list(log.chat, "user", where.user))[0]?.unread).toBe(2);
    });

    test("is the same message however many come at once", async () => {
      await using log = await subject.open();
      const where = newChat();
      const ids = await Promise.all(
        Array.from({ length: 20 }, () => write(log.chat, where, "once", { ref: "r" })),
      );
      expect(new Set(ids).size).toBe(1);
      expect(await contents(log.chat, where)).toEqual(["once"]);
    });

    test("is the same message after the chat was deleted, which stays deleted", async () => {
      await using log = await subject.open();
      const where = newChat();
      const id = await write(log.chat, where, "gone", { ref: "r" });
      await log.chat.remove(where);
      expect(await write(log.chat, where, "gone", { ref: "r" })).toBe(id);
      expect(await log.chat.messages(where, all)).toBeUndefined();
    });

    test("is the same message after the sender was blocked", async () => {
      await using log = await subject.open();
      const where = newChat();
      const id = await write(log.chat, where, "before", { ref: "r" });
      await log.chat.setBlocked(where, true);
      expect(await write(log.chat, where, "before", { ref: "r" })).toBe(id);
    });

    test("is another message from the other side, in another chat, or spelled otherwise", async () => {
      await using log = await subject.open();
      const where = newChat();
      const ids = await Promise.all([
        write(log.chat, where, "x", { ref: "r" }),
        write(log.chat, where, "x", { ref: "r", from: "user" }),
        write(log.chat, { ...where, user: newChat().user }, "x", { ref: "r" }),
        write(log.chat, { ...where, visitor: newVisitorId() }, "x", { ref: "r", from: "user" }),
        write(log.chat, where, "x", { ref: "R" }),
        write(log.chat, where, "x", { ref: "r " }),
        write(log.chat, where, "x", { ref: "__proto__" }),
        write(log.chat, where, "x", { ref: 'r","' }),
        write(log.chat, where, "x"),
        write(log.chat, where, "x"),
      ]);
      expect(new Set(ids).size).toBe(10);
    });
  });

  describe("order and read state", () => {
    test("200 messages at once get 200 ids and are told in the order of their ids", async () => {
      await using log = await subject.open();
      const where = newChat();
      const ids = await Promise.all(
        Array.from({ length: 200 }, (_, n) =>
          write(log.chat, where, `${n}`, { from: n % 2 ? "user" : "visitor" }),
        ),
      );
      expect(new Set(ids).size).toBe(200);
      const page = await log.chat.messages(where, all);
      const kept = page?.messages ?? [];
      expect(kept.map(({ id }) => Number(id))).toEqual(ids.map(Number).toSorted((a, b) => a - b));
      await log.told.has(where, 200);
      expect(log.told.of(where)).toEqual(kept.map(({ content }) => content));
      const [seen] = await list(log.chat, "visitor", where.visitor);
      expect(seen).toMatchObject({ unread: 100, lastMessage: { id: kept.at(-1)?.id } });
    });

    test("one side's read marker moves to the newest message and is told once", async () => {
      await using log = await subject.open();
      const where = newChat();
      await write(log.chat, where, "one");
      const last = await write(log.chat, where, "two");
      expect(await list(log.chat, "user", where.user)).toMatchObject([{ unread: 2 }]);
      expect(await log.chat.markRead(where, "user")).toBe(last);
      expect(await log.chat.markRead(where, "user")).toBe(last);
      expect(await list(log.chat, "user", where.user)).toMatchObject([{ unread: 0 }]);
      const page = await log.chat.messages(where, all);
      expect(page?.readUpTo).toEqual({ user: last, visitor: "0" });
      await write(log.chat, where, "three");
      await log.told.has(where, 4);
      expect(log.told.of(where)).toEqual(["one", "two", `user read ${last}`, "three"]);
      expect(await list(log.chat, "user", where.user)).toMatchObject([{ unread: 1 }]);
    });

    test("what one writes is unread for the other one only", async () => {
      await using log = await subject.open();
      const where = newChat();
      await write(log.chat, where, "Hello");
      await write(log.chat, where, "Hi", { from: "user" });
      await write(log.chat, where, "How", { from: "user" });
      expect(await list(log.chat, "user", where.user)).toMatchObject([{ unread: 1 }]);
      expect(await list(log.chat, "visitor", where.visitor)).toMatchObject([{ unread: 2 }]);
    });

    test("where there is no chat nothing is read and nobody is told", async () => {
      await using log = await subject.open();
      const where = newChat();
      expect(await log.chat.markRead(where, "visitor")).toBeUndefined();
      expect(await log.chat.messages(where, all)).toBeUndefined();
      expect(await log.chat.remove(where)).toBe(false);
      expect(await list(log.chat, "user", where.user)).toEqual([]);
      await write(log.chat, where, "after");
      await log.told.has(where, 1);
      expect(log.told.of(where)).toEqual(["after"]);
    });
  });

  describe("lists and pages", () => {
    test("a user's chats come newest first, page by page", async () => {
      await using log = await subject.open();
      const { user } = newChat();
      const visitors = Array.from({ length: 7 }, newVisitorId);
      for (const visitor of visitors) await write(log.chat, { user, visitor }, "x");
      await write(log.chat, { user, visitor: visitors[2] as string }, "again");
      const expected = [2, 6, 5, 4, 3, 1, 0].map((at) => visitors[at]);
      const seen: string[] = [];
      let beforeId: string | undefined;
      for (;;) {
        const page = await log.chat.chats({ side: "user", id: user }, { beforeId, limit: 3 });
        if (page.length === 0) break;
        seen.push(...page.map(({ peer }) => peer));
        beforeId = page.at(-1)?.lastMessage.id;
      }
      expect(seen).toEqual(expected as string[]);
    });

    test("a chat in a list has the latest nickname, the last message and, for users, the block", async () => {
      await using log = await subject.open();
      const where = newChat();
      await write(log.chat, where, "one", { nickname: "Old" });
      await write(log.chat, where, "two", { nickname: "New" });
      await write(log.chat, where, "three");
      const id = await write(log.chat, where, "four", { from: "user", nickname: "Boss" });
      await log.chat.setBlocked(where, true);
      const lastMessage = {
        ...{ type: "USER_TO_ANON", id, from: where.user, to: where.visitor, content: "four" },
        ...{ timestamp: "2027-01-15T08:00:00.000Z", chatId: where.visitor },
      };
      const [forUser] = await list(log.chat, "user", where.user);
      expect(forUser).toEqual({
        ...{ peer: where.visitor, unread: 3, nickname: "New", blocked: true, lastMessage },
      } as never);
      const [forVisitor] = await list(log.chat, "visitor", where.visitor);
      expect(forVisitor).toEqual({
        ...{ peer: where.user, unread: 1, nickname: "New", lastMessage },
      } as never);
    });

    test("pages after an id, before an id, and from the beginning", async () => {
      await using log = await subject.open();
      const where = newChat();
      const ids: string[] = [];
      for (let n = 0; n < 10; n++) ids.push(await write(log.chat, where, `${n}`));
      const page = async (options: { afterId?: string; beforeId?: string; limit: number }) =>
        (await log.chat.messages(where, options))?.messages.map(({ content }) => content).join("");
      expect(await page({ limit: 3 })).toBe("012");
      expect(await page({ afterId: ids[2] as string, limit: 3 })).toBe("345");
      expect(await page({ afterId: ids[8] as string, limit: 3 })).toBe("9");
      expect(await page({ afterId: ids[9] as string, limit: 3 })).toBe("");
      expect(await page({ afterId: "999999999999999", limit: 3 })).toBe("");
      expect(await page({ beforeId: ids[9] as string, limit: 3 })).toBe("678");
      expect(await page({ beforeId: ids[2] as string, limit: 3 })).toBe("01");
      expect(await page({ beforeId: ids[0] as string, limit: 3 })).toBe("");
      expect(await page({ beforeId: "0", limit: 3 })).toBe("");
      expect(await page({ beforeId: "999999999999999", limit: 3 })).toBe("789");
    });
  });

  describe("deletion and blocks", () => {
    test("a deleted chat is gone for both sides, and a new message begins a new one", async () => {
      await using log = await subject.open();
      const where = newChat();
      await write(log.chat, where, "old", { nickname: "Vis" });
      await log.chat.markRead(where, "user");
      expect(await log.chat.remove(where)).toBe(true);
      expect(await log.chat.remove(where)).toBe(false);
      expect(await list(log.chat, "user", where.user)).toEqual([]);
      expect(await list(log.chat, "visitor", where.visitor)).toEqual([]);
      expect(await log.chat.messages(where, all)).toBeUndefined();
      expect(await log.chat.markRead(where, "user")).toBeUndefined();
      await write(log.chat, where, "new");
      const [begun] = await list(log.chat, "user", where.user);
      expect(begun).toMatchObject({ unread: 1 });
      expect(begun).not.toHaveProperty("nickname");
      const page = await log.chat.messages(where, all);
      expect(page?.messages.map(({ content }) => content)).toEqual(["new"]);
      expect(page?.readUpTo).toEqual({ user: "0", visitor: "0" });
    });

    test("deleting one chat leaves the others of both people", async () => {
      await using log = await subject.open();
      const [one, two] = [newChat(), newChat()];
      const crossed = { user: one.user, visitor: two.visitor };
      for (const where of [one, two, crossed]) await write(log.chat, where, "x");
      await log.chat.remove(crossed);
      expect(await contents(log.chat, one)).toEqual(["x"]);
      expect(await contents(log.chat, two)).toEqual(["x"]);
    });

    test("a blocked visitor's message is neither kept nor told, the user may still write", async () => {
      await using log = await subject.open();
      const where = newChat();
      const draft = {
        chat: where,
        from: "visitor",
        content: "no",
        atMs: 1_800_000_000_000,
      } as const;
      await write(log.chat, where, "before");
      await log.chat.setBlocked(where, true);
      await log.chat.setBlocked(where, true);
      expect(await log.chat.append(draft)).toEqual({ ok: false, error: "blocked" });
      expect(await log.chat.append({ ...draft, ref: "r" })).toEqual({
        ok: false,
        error: "blocked",
      });
      await write(log.chat, where, "from the user", { from: "user" });
      await log.chat.setBlocked(where, false);
      await log.chat.setBlocked(where, false);
      await write(log.chat, where, "after", { ref: "r" });
      expect(await contents(log.chat, where)).toEqual(["before", "from the user", "after"]);
      await log.told.has(where, 3);
      expect(log.told.of(where)).toEqual(["before", "from the user", "after"]);
    });

    test("a block holds for one visitor and one user, and outlives the chat", async () => {
      await using log = await subject.open();
      const where = newChat();
      await write(log.chat, where, "x");
      await log.chat.setBlocked(where, true);
      await log.chat.remove(where);
      await write(log.chat, { ...where, visitor: newVisitorId() }, "x");
      await write(log.chat, { ...where, user: newChat().user }, "x");
      expect(
        await log.chat.append({
          chat: where,
          from: "visitor",
          content: "x",
          atMs: 1_800_000_000_000,
        }),
      ).toEqual({ ok: false, error: "blocked" });
    });

    test("somebody who never wrote can be blocked", async () => {
      await using log = await subject.open();
      const where = newChat();
      await log.chat.setBlocked(where, true);
      expect(
        await log.chat.append({
          chat: where,
          from: "visitor",
          content: "x",
          atMs: 1_800_000_000_000,
        }),
      ).toEqual({ ok: false, error: "blocked" });
      expect(await list(log.chat, "user", where.user)).toEqual([]);
    });
  });

  describe("what a visitor may write to users whom nobody has seen", () => {
    const tooMany = { ok: false, error: "too_many_recipients" } as const;
    const writeTo = (chat: ChatHistory, visitor: string, user: string) =>
      chat.append({
        chat: { user, visitor },
        from: "visitor",
        content: "x",
        atMs: 1_800_000_000_000,
      });

    test("a few of them, and to those as often as wanted", async () => {
      await using log = await subject.open();
      const visitor = newVisitorId();
      const users = Array.from({ length: MAX_UNANSWERED }, () => newChat().user);
      for (const user of users) await write(log.chat, { user, visitor }, "x");
      expect(await writeTo(log.chat, visitor, newChat().user)).toEqual(tooMany);
      for (const user of users) await write(log.chat, { user, visitor }, "y");
      await write(log.chat, { user: newChat().user, visitor: newVisitorId() }, "x");
    });

    test("a user who was seen doesn't count, and one who comes makes room for another", async () => {
      await using log = await subject.open();
      const visitor = newVisitorId();
      const users = Array.from({ length: MAX_UNANSWERED }, () => newChat().user);
      const known = newChat().user;
      await log.chat.meet(known);
      await log.chat.meet(known);
      for (const user of users) await write(log.chat, { user, visitor }, "x");
      await write(log.chat, { user: known, visitor }, "x");
      expect(await writeTo(log.chat, visitor, newChat().user)).toEqual(tooMany);
      await log.chat.meet(users[3] as string);
      await write(log.chat, { user: newChat().user, visitor }, "x");
      expect(await writeTo(log.chat, visitor, newChat().user)).toEqual(tooMany);
    });

    test("a user may write to as many visitors as there are", async () => {
      await using log = await subject.open();
      const { user } = newChat();
      for (let n = 0; n <= MAX_UNANSWERED; n++) {
        await write(log.chat, { user, visitor: newVisitorId() }, "x", { from: "user" });
      }
      expect(await list(log.chat, "user", user)).toHaveLength(MAX_UNANSWERED + 1);
    });

    test("what comes too much is not kept, also when all of it comes at once", async () => {
      await using log = await subject.open();
      const visitor = newVisitorId();
      const outcomes = await Promise.all(
        Array.from({ length: 3 * MAX_UNANSWERED }, () =>
          writeTo(log.chat, visitor, newChat().user),
        ),
      );
      expect(outcomes.filter(({ ok }) => ok)).toHaveLength(MAX_UNANSWERED);
      expect(await list(log.chat, "visitor", visitor)).toHaveLength(MAX_UNANSWERED);
    });
  });

  describe("how much is kept", () => {
    test("so many messages per chat: the oldest go, and unread counts no more than there is", async () => {
      await using log = await subject.open({ maxMessages: 5 });
      const [where, other] = [newChat(), newChat()];
      await write(log.chat, other, "other");
      for (let n = 0; n < 12; n++) await write(log.chat, where, `${n}`);
      expect(await contents(log.chat, where)).toEqual(["7", "8", "9", "10", "11"]);
      expect(await contents(log.chat, other)).toEqual(["other"]);
      expect(await list(log.chat, "user", where.user)).toMatchObject([
        { unread: 5, lastMessage: { content: "11" } },
      ]);
    });

    test("messages of some age and no older, of which the first page is as good as the last", async () => {
      await using log = await subject.open({ maxAgeMs: 30 * DAY_MS });
      const where = newChat();
      const nowMs = log.clock.nowMs();
      for (let n = 0; n < 20; n++) {
        await write(log.chat, where, `old ${n}`, { atMs: nowMs - 30 * DAY_MS - 1_000 + n });
      }
      await write(log.chat, where, "just in time", { atMs: nowMs - 30 * DAY_MS + 1_000 });
      log.clock.advance(500);
      await write(log.chat, where, "new", { atMs: log.clock.nowMs() });
      const first = await log.chat.messages(where, { limit: 5 });
      expect(first?.messages.map(({ content }) => content)).toEqual(["just in time", "new"]);
      const last = await log.chat.messages(where, { beforeId: "999999999999999", limit: 5 });
      expect(last).toEqual(first as never);
    });

    test("what grows old while nobody writes is gone when it is asked for", async () => {
      await using log = await subject.open({ maxAgeMs: DAY_MS });
      const where = newChat();
      for (let n = 0; n < 20; n++) {
        await write(log.chat, where, `${n}`, { atMs: log.clock.nowMs() + (n < 15 ? 0 : 60_000) });
      }
      log.clock.advance(DAY_MS + 1);
      expect(await log.chat.messages(where, { limit: 5 })).toMatchObject({
        messages: ["15", "16", "17", "18", "19"].map((content) => ({ content })),
      });
      log.clock.advance(60_000);
      expect((await log.chat.messages(where, { limit: 5 }))?.messages ?? []).toEqual([]);
      expect(await list(log.chat, "user", where.user)).toEqual([]);
      expect(await list(log.chat, "visitor", where.visitor)).toEqual([]);
    });

    test("everything where there are no limits", async () => {
      await using log = await subject.open({ maxMessages: 0, maxAgeMs: 0 });
      const where = newChat();
      for (let n = 0; n < 10; n++) await write(log.chat, where, `${n}`, { atMs: n });
      log.clock.advance(10_000 * DAY_MS);
      expect(await contents(log.chat, where)).toHaveLength(10);
      expect(await list(log.chat, "user", where.user)).toHaveLength(1);
    });
  });

  describe("text comes back as it was written", () => {
    test.each(AWKWARD_TEXTS)("%s", async (_, text) => {
      await using log = await subject.open();
      const where = newChat();
      const nickname = text.slice(0, 20);
      const id = await write(log.chat, where, text, { nickname, ref: text.slice(0, 50) });
      expect(await write(log.chat, where, text, { ref: text.slice(0, 50) })).toBe(id);
      const page = await log.chat.messages(where, all);
      expect(page?.messages).toMatchObject([{ id, content: text, nickname }]);
      const [seen] = await list(log.chat, "user", where.user);
      expect(seen).toMatchObject({ nickname, lastMessage: { content: text } });
      await log.told.has(where, 1);
      const [event] = log.told.events.filter(({ chat }) => chat.user === where.user);
      expect(event).toMatchObject({ message: { content: text, nickname } });
    });
  });

  test("users with awkward ids each have chats of their own", async () => {
    await using log = await subject.open();
    const visitor = newVisitorId();
    for (const [, user] of AWKWARD_USERS) {
      const where = { user, visitor };
      await log.chat.meet(user);
      await write(log.chat, where, `to ${user}`, { ref: "r" });
      await log.chat.setBlocked({ user, visitor: newVisitorId() }, true);
    }
    for (const [, user] of AWKWARD_USERS) {
      const where = { user, visitor };
      expect(await contents(log.chat, where)).toEqual([`to ${user}`]);
      expect((await list(log.chat, "user", user)).map(({ peer }) => peer)).toEqual([visitor]);
      expect(await log.chat.markRead(where, "user")).toBeDefined();
      await log.told.has(where, 2);
    }
    const peers = (await list(log.chat, "visitor", visitor)).map(({ peer }) => peer);
    expect(peers).toEqual(AWKWARD_USERS.map(([, user]) => user).toReversed());
    for (const [, user] of AWKWARD_USERS) {
      expect(await log.chat.remove({ user, visitor })).toBe(true);
      expect(await log.chat.messages({ user, visitor }, all)).toBeUndefined();
    }
    expect(await list(log.chat, "visitor", visitor)).toEqual([]);
  });

  test("visitors whose ids differ in case or in a sign are different people", async () => {
    await using log = await subject.open();
    const { user } = newChat();
    const visitors = ["A", "a", "-", "_"].map((sign) => sign.repeat(21) + "A");
    for (const visitor of visitors) await write(log.chat, { user, visitor }, visitor);
    for (const visitor of visitors) {
      expect(await contents(log.chat, { user, visitor })).toEqual([visitor]);
    }
  });
}

describe("SQLite in memory", () => contract(inMemory));

describe("SQLite in a file", () => {
  contract(inFile);

  async function withFile(run: (path: string) => Promise<void>): Promise<void> {
    const file = await newFile();
    try {
      await run(file.path);
    } finally {
      await file.end();
    }
  }

  test("everything is there again when the file is opened again", () =>
    withFile(async (path) => {
      const where = newChat();
      const blocked = newChat();
      let id: string;
      {
        await using log = await openSqlite(path);
        id = await write(log.chat, where, "kept", { ref: "r", nickname: "Vis" });
        await log.chat.markRead(where, "user");
        await log.chat.setBlocked(blocked, true);
        await log.chat.meet(where.user);
      }
      await using log = await openSqlite(path);
      expect(await log.chat.messages(where, { limit: 10 })).toMatchObject({
        messages: [{ id, content: "kept", nickname: "Vis" }],
        readUpTo: { user: id, visitor: "0" },
      });
      expect(await write(log.chat, where, "kept", { ref: "r" })).toBe(id);
      expect(Number(await write(log.chat, where, "next"))).toBeGreaterThan(Number(id));
      const draft = { from: "visitor", content: "x", atMs: 1_800_000_000_000 } as const;
      expect(await log.chat.append({ chat: blocked, ...draft })).toMatchObject({ ok: false });
    }));

  test("ids go on rising when the newest messages were deleted before", () =>
    withFile(async (path) => {
      const where = newChat();
      let id: string;
      {
        await using log = await openSqlite(path);
        id = await write(log.chat, where, "x");
        await log.chat.remove(where);
      }
      await using log = await openSqlite(path);
      expect(Number(await write(log.chat, where, "y"))).toBeGreaterThan(Number(id));
    }));

  test("closing keeps what was under way", () =>
    withFile(async (path) => {
      const where = newChat();
      const log = await openSqlite(path);
      const writing = write(log.chat, where, "last words");
      await log.chat.close();
      await writing;
      await using again = await openSqlite(path);
      expect(await again.chat.messages(where, { limit: 10 })).toMatchObject({
        messages: [{ content: "last words" }],
      });
    }));

  test("what is old leaves the file, and a ref a day old is still known", () =>
    withFile(async (path) => {
      await using log = await openSqlite(path, { maxAgeMs: 3 * DAY_MS });
      const where = newChat();
      const other = newChat();
      const id = await write(log.chat, where, "old", { ref: "r", atMs: log.clock.nowMs() });
      log.clock.advance(DAY_MS + 3_600_000);
      expect(await write(log.chat, where, "old", { ref: "r" })).toBe(id);
      log.clock.advance(REF_TTL_MS);
      await write(log.chat, other, "between");
      expect(await write(log.chat, where, "again", { ref: "r", atMs: log.clock.nowMs() })).not.toBe(
        id,
      );
      log.clock.advance(DAY_MS);
      await write(log.chat, other, "between");
      using file = new Database(path, { readonly: true });
      const texts = file.query<{ content: string }, []>("SELECT content FROM messages").all();
      expect(texts.map(({ content }) => content)).not.toContain("old");
      expect((await log.chat.messages(where, { limit: 10 }))?.messages).toMatchObject([
        { content: "again" },
      ]);
    }));

  test("a chat of which nothing is young any more leaves the file", () =>
    withFile(async (path) => {
      await using log = await openSqlite(path, { maxAgeMs: DAY_MS });
      const where = newChat();
      await write(log.chat, where, "old", { atMs: log.clock.nowMs() });
      log.clock.advance(2 * DAY_MS);
      await log.chat.meet("somebody");
      expect(await log.chat.messages(where, { limit: 10 })).toBeUndefined();
    }));

  /** Something wrong with the file at the path; what it needs to be set right again. */
  type Spoil = (path: string) => Promise<Disposable | undefined | void>;
  const SPOILED: readonly (readonly [what: string, spoil: Spoil])[] = [
    [
      "of a newer version",
      async (path) => {
        await (await openSqlite(path)).chat.close();
        using file = new Database(path);
        file.run("PRAGMA user_version = 2");
      },
    ],
    [
      "that belongs to something else",
      async (path) => {
        using file = new Database(path);
        file.run("CREATE TABLE invoices (id INTEGER)");
      },
    ],
    [
      "with our version and somebody else's tables",
      async (path) => {
        using file = new Database(path);
        file.run("CREATE TABLE messages (id INTEGER)");
        file.run("PRAGMA user_version = 1");
      },
    ],
    [
      "that is no database",
      async (path) => void (await Bun.write(path, "Dear diary, ".repeat(1_000))),
    ],
    [
      "whose first page is broken",
      async (path) => {
        await (await openSqlite(path)).chat.close();
        const bytes = new Uint8Array(await Bun.file(path).arrayBuffer());
        bytes.fill(0xa5, 100, 4_096);
        await Bun.write(path, bytes);
      },
    ],
    [
      "that was cut short",
      async (path) => {
        await (await openSqlite(path)).chat.close();
        const bytes = new Uint8Array(await Bun.file(path).arrayBuffer());
        await Bun.write(path, bytes.subarray(0, 6_000));
      },
    ],
    [
      "that somebody else has locked",
      async (path) => {
        const file = new Database(path);
        file.run("CREATE TABLE a (b)");
        file.run("BEGIN EXCLUSIVE");
        return file;
      },
    ],
    [
      "that is a folder",
      async (path) => {
        await Bun.write(join(path, "inside"), "");
      },
    ],
  ];

  describe("refuses to start with a file", () => {
    test.each(SPOILED)("%s", async (_, spoil) => {
      await withFile(async (path) => {
        using _held = (await spoil(path)) ?? undefined;
        expect(() => sqliteChatHistory({ path, clock: fakeClock() })).toThrow();
      });
    });

    test("in a folder that isn't there", () =>
      withFile(async (path) => {
        expect(() =>
          sqliteChatHistory({ path: join(path, "chat.sqlite"), clock: fakeClock() }),
        ).toThrow();
      }));

    test("that is somebody else's, which stays as it was, byte for byte", () =>
      withFile(async (path) => {
        {
          using file = new Database(path);
          file.run("CREATE TABLE invoices (id INTEGER)");
        }
        const before = await Bun.file(path).bytes();
        expect(() => sqliteChatHistory({ path, clock: fakeClock() })).toThrow();
        expect(await Bun.file(path).bytes()).toEqual(before);
      }));

    test("and leaves no timer running", () =>
      withFile(async (path) => {
        using file = new Database(path);
        file.run("CREATE TABLE messages (id INTEGER)");
        file.run("PRAGMA user_version = 1");
        const clock = fakeClock();
        expect(() => sqliteChatHistory({ path, clock })).toThrow();
        expect(clock.timers).toBe(0);
      }));
  });

  test("a server whose file is of no use says so in one line and exits with 78", () =>
    withFile(async (path) => {
      await Bun.write(path, "Dear diary, ".repeat(1_000));
      await using server = startProcess({ CHAT_DATABASE: path });
      expect(await server.exited).toBe(78);
      expect(server.events).toMatchObject([
        { level: "error", event: "config_fault", variable: "CHAT_DATABASE" },
      ]);
      expect(server.stdout).not.toContain(path);
      expect(server.stderr).toBe("");
    }));

  const setpriv = Bun.which("setpriv");
  test.skipIf(process.getuid?.() === 0 && !setpriv)(
    "a server whose file may only be read says so in one line and exits with 78",
    () =>
      withFile(async (path) => {
        await (await openSqlite(path)).chat.close();
        const chmod = Bun.spawnSync(["chmod", "-R", "a=rX", join(path, "..")]);
        expect(chmod.exitCode).toBe(0);
        const isRoot = process.getuid?.() === 0;
        const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        await using server = startProcess(
          { CHAT_DATABASE: path },
          { within: isRoot ? asNobody : [] },
        );
        expect(await server.exited).toBe(78);
        expect(server.events).toMatchObject([
          { level: "error", event: "config_fault", variable: "CHAT_DATABASE" },
        ]);
      }),
  );

  test("while another process holds the file writing rejects; afterwards the same ref settles it", () =>
    withFile(async (path) => {
      await using log = await openSqlite(path);
      const where = newChat();
      const id = await write(log.chat, where, "before", { ref: "1" });
      using other = new Database(path);
      other.run("BEGIN IMMEDIATE");
      const outcomes = await Promise.allSettled([
        write(log.chat, where, "during", { ref: "2" }),
        log.chat.markRead(where, "user"),
        log.chat.remove(where),
        log.chat.setBlocked(where, true),
      ]);
      expect(outcomes.map(({ status }) => status)).toEqual(Array(4).fill("rejected"));
      expect(await log.chat.messages(where, { limit: 10 })).toMatchObject({ messages: [{ id }] });
      other.run("ROLLBACK");
      expect(log.told.of(where)).toEqual(["before"]);
      await write(log.chat, where, "during", { ref: "2" });
      await write(log.chat, where, "after", { ref: "3" });
      expect(log.told.of(where)).toEqual(["before", "during", "after"]);
    }));

  test("what another process wrote is seen before the next write, and costs nothing", () =>
    withFile(async (path) => {
      await using one = await openSqlite(path);
      await using two = await openSqlite(path);
      const where = newChat();
      for (let n = 0; n < 5; n++) await write(one.chat, where, `one ${n}`);
      await write(two.chat, where, "two", { ref: "r" });
      expect(await write(one.chat, where, "two", { ref: "r" })).toBe("6");
      await write(one.chat, where, "the end");
      const page = await one.chat.messages(where, { limit: 10 });
      expect(page?.messages.map(({ id }) => id)).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
      const [seen] = await two.chat.chats({ side: "user", id: where.user }, { limit: 1 });
      expect(seen).toMatchObject({ unread: 7, lastMessage: { content: "the end" } });
    }));

  test("what was kept is told although the very next messages couldn't be kept", () =>
    withFile(async (path) => {
      await using log = await openSqlite(path);
      const where = newChat();
      using other = new Database(path);
      let next: Promise<string> | undefined;
      const first = log.chat.append({
        ...{ chat: where, from: "visitor", atMs: log.clock.nowMs() },
        // Read inside the transaction: what is queued here comes right after it.
        get content() {
          queueMicrotask(() => {
            other.run("BEGIN IMMEDIATE");
            next = write(log.chat, where, "second");
            next.catch(() => {});
          });
          return "first";
        },
      });
      expect(await first).toMatchObject({ ok: true });
      await expect(next as Promise<string>).rejects.toThrow();
      expect(log.told.of(where)).toEqual(["first"]);
    }));

  // A limit on the size of files that is lifted later: what a full disk is, without a disk.
  const prlimit = Bun.which("prlimit");
  test.skipIf(!prlimit)(
    "on a full disk nothing is acknowledged, the socket stays, and it goes on when there is room",
    () =>
      withFile(async (path) => {
        await using server = await startInstance(
          { CHAT_DATABASE: path },
          { within: ["sh", "-c", `trap "" XFSZ; ulimit -S -f 256; exec "$@"`, "sh"] },
        );
        const cookie = await server.visitorCookie();
        await using visitor = await server.openVisitor(cookie);
        const say = async (ref: number) => {
          const content = `${ref} ${"x".repeat(3_000)}`;
          visitor.send({ type: "ANON_TO_USER", to: "alice", content, ref: `${ref}` });
          return visitor.next((frame) => frame.ref === `${ref}`);
        };
        let count = 0;
        let answer = await say(0);
        while (answer.type === "ACK" && count < 2_000) answer = await say(++count);
        expect(answer).toMatchObject({ type: "ERROR", code: "unavailable" });
        expect(await say(count)).toMatchObject({ type: "ERROR", code: "unavailable" });
        const room = ["prlimit", "--pid", `${server.pid}`, "--fsize=unlimited:unlimited"];
        expect(Bun.spawnSync(room).exitCode).toBe(0);
        const ids = [await say(count), await say(count), await say(count + 1)].map(({ id }) => id);
        expect(ids[0]).toBe(ids[1]);
        const page = await server.ask("/api/chats/alice/messages?limit=200", { cookie });
        const told = page.body.messages.map(({ content }: { content: string }) =>
          parseInt(content, 10),
        );
        expect(told).toEqual(Array.from({ length: count + 2 }, (_, n) => n).slice(0, 200));
      }),
  );
});

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`Redis, ${name}`, () => {
    contract(() => inRedis(name));

    test("a ref is kept for a day at least, and everything of a chat ends with its last message", async () => {
      await using wire = await startWire(name);
      await using log = await openRedis(wire, name, { maxAgeMs: 5 * DAY_MS });
      await write(log.chat, newChat(), "x", { ref: "r" });
      const keys = (await wire.redis.command("KEYS", "*")) as string[];
      const livesMs = new Map<string, number>();
      for (const key of keys) livesMs.set(key, Number(await wire.redis.command("PTTL", key)));
      const of = (kind: string) =>
        [...livesMs].flatMap(([key, ttlMs]) =>
          key.startsWith(`ws-ticket:chat:${kind}:`) ? [ttlMs] : [],
        );
      expect(of("ref")).toHaveLength(1);
      for (const ttlMs of of("ref")) expect(ttlMs).toBeGreaterThan(DAY_MS);
      const ending = [...of("messages"), ...of("chat"), ...of("of-user"), ...of("of-visitor")];
      expect(ending).toHaveLength(4);
      for (const ttlMs of ending) expect(Math.round(ttlMs / DAY_MS)).toBe(5);
    });

    test("nobody is let in while Redis is away, and again when it is back", async () => {
      await using wire = await startWire(name);
      await wire.goDown();
      const feed = createFeed({ transport: wire.transport(), clock: fakeClock(), log: () => {} });
      await expect(feed.ready()).rejects.toThrow();
      await wire.comeBack();
      await feed.ready();
      await feed.close();
    });

    test("while Redis is away writing rejects; afterwards the same ref settles it", async () => {
      await using wire = await startWire(name);
      await using log = await openRedis(wire, name);
      const where = newChat();
      await wire.goDown();
      await expect(write(log.chat, where, "x", { ref: "r" })).rejects.toThrow();
      await expect(log.chat.messages(where, { limit: 1 })).rejects.toThrow();
      await expect(log.chat.markRead(where, "user")).rejects.toThrow();
      await wire.comeBack();
      await write(log.chat, where, "x", { ref: "r" });
      await log.told.has(where, 1);
      expect(log.told.of(where)).toEqual(["x"]);
    });

    test("a message whose acknowledgement was lost is kept once, and told once", async () => {
      await using wire = await startWire(name);
      await using other = await openRedis(wire, name);
      await using log = await openRedis(wire, name);
      const where = newChat();
      await write(log.chat, where, "before");
      await other.told.has(where, 1);
      wire.loseReplies("EVAL");
      await expect(write(log.chat, where, "x", { ref: "r" })).rejects.toThrow();
      wire.heal();
      await write(log.chat, where, "x", { ref: "r" });
      await write(log.chat, where, "after");
      for (const one of [log, other]) {
        await one.told.has(where, 3);
        expect(one.told.of(where)).toEqual(["before", "x", "after"]);
      }
    });

    test("scripts that Redis has forgotten are given to it again", async () => {
      await using wire = await startWire(name);
      await using log = await openRedis(wire, name);
      const where = newChat();
      await write(log.chat, where, "one");
      await wire.redis.command("SCRIPT", "FLUSH");
      await write(log.chat, where, "two");
      await log.told.has(where, 2);
      expect(log.told.of(where)).toEqual(["one", "two"]);
    });

    test("messages that meet a Redis without its scripts stay in the order in which they were written", async () => {
      await using wire = await startWire(name);
      await using log = await openRedis(wire, name);
      const where = newChat();
      const ids: string[] = [];
      for (let round = 0; round < 20; round++) {
        await wire.redis.command("SCRIPT", "FLUSH");
        const writing: Promise<string>[] = [];
        for (let n = 0; n < 20; n++) {
          writing.push(write(log.chat, where, `${n}`));
          for (let turn = 0; turn < round; turn++) {
            await new Promise((resolve) => setImmediate(resolve));
          }
        }
        ids.push(...(await Promise.all(writing)));
      }
      expect(ids.map(Number)).toEqual(ids.map(Number).toSorted((a, b) => a - b));
    });

    describe("when what was not yet read is cut off the stream, everybody is told to read again", () => {
      /** Fills the feed past what it keeps, in one step of Redis that no reader can get into. */
      async function overrun(wire: Wire): Promise<void> {
        const [key] = (await wire.redis.command("KEYS", "*feed*")) as string[];
        const fill = `for n = 1, 12000 do
          redis.call('XADD', KEYS[1], 'MAXLEN', 10000, '*', 'kind', 'read', 'user', 'u', 'visitor', 'v', 'by', 'user', 'upTo', n)
        end`;
        await wire.redis.command("EVAL", fill, "1", key as string);
      }

      test("after an outage", async () => {
        await using wire = await startWire(name);
        await using log = await openRedis(wire, name);
        const where = newChat();
        await write(log.chat, where, "before");
        await log.told.has(where, 1);
        wire.stall();
        await overrun(wire);
        wire.heal();
        await until(() => log.gaps === 1);
        await write(log.chat, where, "after");
        await log.told.has(where, 2);
        expect(log.told.events.map(({ kind }) => kind)).toEqual(["message", "message"]);
      }, 15_000);

      test("by a reader too slow, without any failure", async () => {
        await using wire = await startWire(name);
        await using log = await openRedis(wire, name);
        const where = newChat();
        await write(log.chat, where, "before");
        await log.told.has(where, 1);
        await overrun(wire);
        await until(() => log.gaps === 1);
        await write(log.chat, where, "after");
        await log.told.has(where, 2);
        expect(log.told.of(where)).toEqual(["before", "after"]);
      });

      test("and not when all of it is there still", async () => {
        await using wire = await startWire(name);
        await using log = await openRedis(wire, name);
        const where = newChat();
        await write(log.chat, where, "before");
        await log.told.has(where, 1);
        wire.stall();
        const writing = Array.from({ length: 700 }, (_, n) => write(log.chat, where, `${n}`));
        wire.heal();
        await Promise.all(writing);
        await log.told.has(where, 701);
        expect(log.gaps).toBe(0);
        expect(new Set(log.told.of(where)).size).toBe(701);
      });
    });
  });
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(10);
}
