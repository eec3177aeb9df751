import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  type Chat,
  type ChatEvent,
  type ChatHistory,
  MAX_PAGE_LENGTH,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  UNANSWERED_TTL_MS,
} from "../../src/chat/history.ts";
import { REQUESTS_PER_MINUTE } from "../../src/chat/limits.ts";
import type { Side } from "../../src/wire/frames.ts";
import { begin, newChat, newVisitorId, write } from "../support/chat.ts";
import type { Subject } from "../support/history.ts";

const DAY_MS = 86_400_000;
/** When messages are written, unless a test says otherwise. */
const AT_MS = 1_800_000_000_000;

/** Text that some database could return as something else, or not at all. */
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

/** What every history does, wherever it is stored. */
export function contract(start: () => Promise<Subject>): void {
  let subject: Subject;
  beforeAll(async () => {
    subject = await start();
  });
  afterAll(() => subject.end());

  const all = { limit: 200 };
  const contents = async (history: ChatHistory, where: Chat) =>
    (await history.messages(where, all))?.messages.map(({ content }) => content);
  const list = async (history: ChatHistory, side: Side, id: string) =>
    history.chats({ side, id }, all);

  test("stores a message as it was written, for both sides", async () => {
    await using chat = await subject.open();
    const where = newChat();
    const atMs = Date.parse("2026-02-03T04:05:06.789Z");
    const kept = await chat.history.append({
      ...{ chat: where, from: "visitor", content: "Hello", nickname: "Vis", ref: "r", atMs },
    });
    expect(kept).toEqual({
      ...{ ok: true, id: expect.stringMatching(/^[1-9]\d*$/), atMs, isUnanswered: true },
    });
    const message = {
      ...{ type: "ANON_TO_USER", from: where.visitor, to: where.user, content: "Hello" },
      ...{ nickname: "Vis", timestamp: "2026-02-03T04:05:06.789Z", chatId: where.visitor },
      id: kept.ok && kept.id,
    };
    expect(await chat.history.messages(where, all)).toEqual({
      messages: [message],
      readUpTo: { user: "0", visitor: "0" },
      more: false,
    } as never);
    await chat.delivered.has(where, 1);
    const [event, ...others] = chat.delivered.events.filter(({ chat }) => chat.user === where.user);
    const { frame, ...rest } = event as ChatEvent & { kind: "message" };
    expect(rest).toEqual({ kind: "message", chat: where });
    expect(JSON.parse(frame)).toEqual(message);
    expect(others).toEqual([]);
  });

  test("stores a message without a nickname", async () => {
    await using chat = await subject.open();
    const where = newChat();
    await write(chat.history, where, "Hello");
    await write(chat.history, where, "Hi", { from: "user" });
    const page = await chat.history.messages(where, all);
    expect(page?.messages).toMatchObject([
      { type: "ANON_TO_USER", from: where.visitor, to: where.user, chatId: where.visitor },
      { type: "USER_TO_ANON", from: where.user, to: where.visitor, chatId: where.visitor },
    ]);
    for (const message of page?.messages ?? []) expect(message).not.toHaveProperty("nickname");
  });

  test("ids rise over all chats, and after a deletion", async () => {
    await using chat = await subject.open();
    const [one, two] = [newChat(), newChat()];
    const ids: number[] = [];
    for (let round = 0; round < 3; round++) {
      ids.push(
        Number(await write(chat.history, one, "a")),
        Number(await write(chat.history, two, "b")),
      );
      await chat.history.remove(two);
    }
    expect(ids).toEqual(ids.toSorted((a, b) => a - b));
    expect(new Set(ids).size).toBe(6);
  });

  test("keeps what users show to visitors, each for themselves, and the latest of it", async () => {
    await using chat = await subject.open();
    const { history } = chat;
    expect(await history.profile("nobody")).toEqual({});
    const shown = { name: `"Al" {ice}`, greeting: "Hello\n漢字" };
    await history.setProfile("alice", { name: "Alice" });
    await history.setProfile("alice", shown);
    await history.setProfile("bob", { greeting: "1" });
    expect(await history.profile("alice")).toEqual(shown);
    expect(await history.profile("bob")).toEqual({ greeting: "1" });
    await history.setProfile("alice", {});
    expect(await history.profile("alice")).toEqual({});
    for (const [, user] of AWKWARD_USERS)
      await history.setProfile(user, { name: `for ${user}`.slice(0, 6) });
    for (const [, user] of AWKWARD_USERS) {
      expect(await history.profile(user)).toEqual({ name: `for ${user}`.slice(0, 6) });
    }
  });

  test("a probe resolves, and leaves ids, chats and deliveries as they were", async () => {
    await using chat = await subject.open();
    const where = newChat();
    const first = Number(await write(chat.history, where, "before"));
    for (let round = 0; round < 3; round++) await chat.history.probe?.();
    expect(Number(await write(chat.history, where, "after"))).toBeGreaterThan(first);
    await chat.delivered.has(where, 2);
    expect(chat.delivered.of(where)).toEqual(["before", "after"]);
    expect(await contents(chat.history, where)).toEqual(["before", "after"]);
    expect(chat.history.probe).toBeFunction();
  });

  describe("a repeated ref", () => {
    test("is the same message, with the first one's id, time and text", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const draft = { chat: where, from: "visitor", ref: "r" } as const;
      const first = await chat.history.append({ ...draft, content: "first", atMs: AT_MS });
      const again = await chat.history.append({
        ...draft,
        content: "other",
        atMs: 1_800_000_005_000,
      });
      // Stored once, it is unanswered once.
      expect(again).toEqual({ ...first, isUnanswered: false } as never);
      await write(chat.history, where, "last");
      expect(await contents(chat.history, where)).toEqual(["first", "last"]);
      await chat.delivered.has(where, 2);
      expect(chat.delivered.of(where)).toEqual(["first", "last"]);
      expect((await list(chat.history, "user", where.user))[0]?.unread).toBe(2);
    });

    test("is the same message also among 20 at once", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const ids = await Promise.all(
        Array.from({ length: 20 }, () => write(chat.history, where, "once", { ref: "r" })),
      );
      expect(new Set(ids).size).toBe(1);
      expect(await contents(chat.history, where)).toEqual(["once"]);
    });

    test("is the same message after the chat was deleted, which stays deleted", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const id = await write(chat.history, where, "gone", { ref: "r" });
      await chat.history.remove(where);
      expect(await write(chat.history, where, "gone", { ref: "r" })).toBe(id);
      expect(await chat.history.messages(where, all)).toBeUndefined();
    });

    test("is the same message after the sender was blocked", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const id = await write(chat.history, where, "before", { ref: "r" });
      await chat.history.setBlocked(where, true);
      expect(await write(chat.history, where, "before", { ref: "r" })).toBe(id);
    });

    test("is another message from the other side, in another chat, or in another spelling", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const visited = { ...where, visitor: newVisitorId() };
      await write(chat.history, visited, "x");
      const ids = await Promise.all([
        write(chat.history, where, "x", { ref: "r" }),
        write(chat.history, where, "x", { ref: "r", from: "user" }),
        write(chat.history, { ...where, user: newChat().user }, "x", { ref: "r" }),
        write(chat.history, visited, "x", { ref: "r", from: "user" }),
        write(chat.history, where, "x", { ref: "R" }),
        write(chat.history, where, "x", { ref: "r " }),
        write(chat.history, where, "x", { ref: "__proto__" }),
        write(chat.history, where, "x", { ref: 'r","' }),
        write(chat.history, where, "x"),
        write(chat.history, where, "x"),
      ]);
      expect(new Set(ids).size).toBe(10);
    });
  });

  describe("order and read state", () => {
    test("200 messages at once have 200 ids and are delivered in the order of their ids", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const ids = await Promise.all(
        Array.from({ length: 200 }, (_, n) =>
          write(chat.history, where, `${n}`, { from: n % 2 ? "user" : "visitor" }),
        ),
      );
      expect(new Set(ids).size).toBe(200);
      const page = await chat.history.messages(where, all);
      const kept = page?.messages ?? [];
      expect(kept.map(({ id }) => Number(id))).toEqual(ids.map(Number).toSorted((a, b) => a - b));
      await chat.delivered.has(where, 200);
      expect(chat.delivered.of(where)).toEqual(kept.map(({ content }) => content));
      const [seen] = await list(chat.history, "visitor", where.visitor);
      expect(seen).toMatchObject({ unread: 100, lastMessage: { id: kept.at(-1)?.id } });
    });

    test("a read mark moves to the newest message and is delivered once", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "one");
      const last = await write(chat.history, where, "two");
      expect(await list(chat.history, "user", where.user)).toMatchObject([{ unread: 2 }]);
      expect(await chat.history.markRead(where, "user")).toBe(last);
      expect(await chat.history.markRead(where, "user")).toBe(last);
      expect(await list(chat.history, "user", where.user)).toMatchObject([{ unread: 0 }]);
      const page = await chat.history.messages(where, all);
      expect(page?.readUpTo).toEqual({ user: last, visitor: "0" });
      await write(chat.history, where, "three");
      await chat.delivered.has(where, 4);
      expect(chat.delivered.of(where)).toEqual(["one", "two", `user read ${last}`, "three"]);
      expect(await list(chat.history, "user", where.user)).toMatchObject([{ unread: 1 }]);
    });

    test("a message is unread for the other side only", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "Hello");
      await write(chat.history, where, "Hi", { from: "user" });
      await write(chat.history, where, "How", { from: "user" });
      expect(await list(chat.history, "user", where.user)).toMatchObject([{ unread: 1 }]);
      expect(await list(chat.history, "visitor", where.visitor)).toMatchObject([{ unread: 2 }]);
    });

    test("without a chat there is nothing to read, to mark or to delete", async () => {
      await using chat = await subject.open();
      const where = newChat();
      expect(await chat.history.markRead(where, "visitor")).toBeUndefined();
      expect(await chat.history.messages(where, all)).toBeUndefined();
      expect(await chat.history.remove(where)).toBe(false);
      expect(await list(chat.history, "user", where.user)).toEqual([]);
      await write(chat.history, where, "after");
      await chat.delivered.has(where, 1);
      expect(chat.delivered.of(where)).toEqual(["after"]);
    });
  });

  describe("lists and pages", () => {
    test("a user's chats come newest first, page by page", async () => {
      await using chat = await subject.open();
      const { user } = newChat();
      const visitors = Array.from({ length: 7 }, newVisitorId);
      for (const visitor of visitors) await write(chat.history, { user, visitor }, "x");
      await write(chat.history, { user, visitor: visitors[2] as string }, "again");
      const expected = [2, 6, 5, 4, 3, 1, 0].map((at) => visitors[at]);
      const seen: string[] = [];
      let beforeId: string | undefined;
      for (;;) {
        const page = await chat.history.chats({ side: "user", id: user }, { beforeId, limit: 3 });
        if (page.length === 0) break;
        seen.push(...page.map(({ peer }) => peer));
        beforeId = page.at(-1)?.lastMessage.id;
      }
      expect(seen).toEqual(expected as string[]);
    });

    test("a chat in a list has the latest nickname, the last message and, for users, the block", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "one", { nickname: "Old" });
      await write(chat.history, where, "two", { nickname: "New" });
      await write(chat.history, where, "three");
      const id = await write(chat.history, where, "four", { from: "user", nickname: "Boss" });
      await chat.history.setBlocked(where, true);
      const lastMessage = {
        ...{ type: "USER_TO_ANON", id, from: where.user, to: where.visitor, content: "four" },
        ...{ timestamp: "2027-01-15T08:00:00.000Z", chatId: where.visitor },
      };
      const [forUser] = await list(chat.history, "user", where.user);
      expect(forUser).toEqual({
        ...{ peer: where.visitor, unread: 3, nickname: "New", blocked: true, lastMessage },
      } as never);
      const [forVisitor] = await list(chat.history, "visitor", where.visitor);
      expect(forVisitor).toEqual({
        ...{ peer: where.user, unread: 1, nickname: "New", lastMessage },
      } as never);
    });

    test("pages after an id, before an id, and from the beginning", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const ids: string[] = [];
      for (let n = 0; n < 10; n++) ids.push(await write(chat.history, where, `${n}`));
      const page = async (options: { afterId?: string; beforeId?: string; limit: number }) =>
        (await chat.history.messages(where, options))?.messages
          .map(({ content }) => content)
          .join("");
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
    test("a deleted chat is gone for both sides, and a new message starts a new one", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "old", { nickname: "Vis" });
      await chat.history.markRead(where, "user");
      expect(await chat.history.remove(where)).toBe(true);
      expect(await chat.history.remove(where)).toBe(false);
      expect(await list(chat.history, "user", where.user)).toEqual([]);
      expect(await list(chat.history, "visitor", where.visitor)).toEqual([]);
      expect(await chat.history.messages(where, all)).toBeUndefined();
      expect(await chat.history.markRead(where, "user")).toBeUndefined();
      await write(chat.history, where, "new");
      const [begun] = await list(chat.history, "user", where.user);
      expect(begun).toMatchObject({ unread: 1 });
      expect(begun).not.toHaveProperty("nickname");
      const page = await chat.history.messages(where, all);
      expect(page?.messages.map(({ content }) => content)).toEqual(["new"]);
      expect(page?.readUpTo).toEqual({ user: "0", visitor: "0" });
    });

    test("deleting one chat leaves the others of both people", async () => {
      await using chat = await subject.open();
      const [one, two] = [newChat(), newChat()];
      const crossed = { user: one.user, visitor: two.visitor };
      for (const where of [one, two, crossed]) await write(chat.history, where, "x");
      await chat.history.remove(crossed);
      expect(await contents(chat.history, one)).toEqual(["x"]);
      expect(await contents(chat.history, two)).toEqual(["x"]);
    });

    test("a blocked visitor's message is neither stored nor delivered; the user may still write", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const draft = {
        chat: where,
        from: "visitor",
        content: "no",
        atMs: AT_MS,
      } as const;
      await write(chat.history, where, "before");
      await chat.history.setBlocked(where, true);
      await chat.history.setBlocked(where, true);
      expect(await chat.history.append(draft)).toEqual({ ok: false, error: "blocked" });
      expect(await chat.history.append({ ...draft, ref: "r" })).toEqual({
        ok: false,
        error: "blocked",
      });
      await write(chat.history, where, "from the user", { from: "user" });
      await chat.history.setBlocked(where, false);
      await chat.history.setBlocked(where, false);
      await write(chat.history, where, "after", { ref: "r" });
      expect(await contents(chat.history, where)).toEqual(["before", "from the user", "after"]);
      await chat.delivered.has(where, 5);
      expect(chat.delivered.of(where)).toEqual([
        ...["before", "blocked", "from the user", "not blocked", "after"],
      ]);
    });

    test("a chat is open from the visitor's first message on, until a block or its deletion", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const isOpen = () => chat.history.isOpen(where);
      expect(await isOpen()).toBe(false);
      await write(chat.history, { ...where, user: newChat().user }, "to somebody else");
      await write(chat.history, { ...where, visitor: newVisitorId() }, "by somebody else");
      expect(await isOpen()).toBe(false);
      await write(chat.history, where, "x");
      expect(await isOpen()).toBe(true);
      await chat.history.setBlocked(where, true);
      expect(await isOpen()).toBe(false);
      await chat.history.setBlocked(where, false);
      expect(await isOpen()).toBe(true);
      await chat.history.remove(where);
      expect(await isOpen()).toBe(false);
      await write(chat.history, where, "y");
      expect(await isOpen()).toBe(true);
    });

    test("a deletion is delivered once, with the last message's id, between what was and what follows", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "one");
      const last = await write(chat.history, where, "two");
      const removed = await Promise.all([1, 2, 3].map(() => chat.history.remove(where)));
      expect(removed.filter(Boolean)).toHaveLength(1);
      await write(chat.history, where, "new");
      await chat.delivered.has(where, 4);
      expect(chat.delivered.of(where)).toEqual(["one", "two", `deleted to ${last}`, "new"]);
    });

    test("a block is for one visitor and one user, and outlives the chat", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "x");
      await chat.history.setBlocked(where, true);
      await chat.history.remove(where);
      await write(chat.history, { ...where, visitor: newVisitorId() }, "x");
      await write(chat.history, { ...where, user: newChat().user }, "x");
      expect(
        await chat.history.append({
          chat: where,
          from: "visitor",
          content: "x",
          atMs: AT_MS,
        }),
      ).toEqual({ ok: false, error: "blocked" });
    });

    test("a visitor who never wrote to the user can't be blocked: not_found", async () => {
      await using chat = await subject.open();
      const [where, other] = [newChat(), newChat()];
      await write(chat.history, other, "to somebody else");
      for (const visitor of [where.visitor, other.visitor]) {
        const cold = { user: where.user, visitor };
        expect(await chat.history.setBlocked(cold, true)).toBe("not_found");
        expect(await chat.history.setBlocked(cold, false)).toBe("done");
        await write(chat.history, cold, "not blocked");
      }
    });

    test("a block stays settable and liftable after the chat was deleted", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "x");
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      await chat.history.remove(where);
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      expect(await chat.history.setBlocked(where, false)).toBe("done");
      expect(await chat.history.setBlocked(where, true)).toBe("not_found");
      await write(chat.history, where, "again");
    });
  });

  describe("a user", () => {
    const notFound = { ok: false, error: "not_found" } as const;
    const answer = (history: ChatHistory, chat: Chat, ref?: string) =>
      history.append({ chat, from: "user", content: "answer", ref, atMs: AT_MS });

    test("can't write first: not_found, for a visitor of others as for one who doesn't exist", async () => {
      await using chat = await subject.open();
      const [where, other] = [newChat(), newChat()];
      await write(chat.history, other, "to somebody else");
      for (const visitor of [other.visitor, newVisitorId()]) {
        const cold = { user: where.user, visitor };
        expect(await answer(chat.history, cold)).toEqual(notFound);
        expect(await answer(chat.history, cold, "r")).toEqual(notFound);
        expect(await chat.history.messages(cold, all)).toBeUndefined();
        expect(await list(chat.history, "visitor", visitor)).toHaveLength(
          visitor === other.visitor ? 1 : 0,
        );
        await write(chat.history, cold, "first");
        expect(await answer(chat.history, cold, "r")).toMatchObject({ ok: true });
        await chat.delivered.has(cold, 2);
        expect(chat.delivered.of(cold)).toEqual(["first", "answer"]);
      }
    });

    test("can answer once the visitor has written, also in the same turn", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const [early, first, late] = await Promise.all([
        answer(chat.history, where),
        write(chat.history, where, "Hello"),
        answer(chat.history, where),
      ]);
      expect(early).toEqual(notFound);
      expect(late).toMatchObject({ ok: true });
      expect(late.ok && Number(late.id)).toBeGreaterThan(Number(first));
      expect(await contents(chat.history, where)).toEqual(["Hello", "answer"]);
    });

    test("can't answer after the chat was deleted, until the visitor writes again", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await write(chat.history, where, "Hello");
      const answered = await answer(chat.history, where, "r");
      await chat.history.remove(where);
      expect(await answer(chat.history, where)).toEqual(notFound);
      expect(await answer(chat.history, where, "other")).toEqual(notFound);
      expect(await answer(chat.history, where, "r")).toEqual(answered);
      expect(await list(chat.history, "visitor", where.visitor)).toEqual([]);
      await write(chat.history, where, "Hello again");
      expect(await answer(chat.history, where)).toMatchObject({ ok: true });
      expect(await contents(chat.history, where)).toEqual(["Hello again", "answer"]);
    });

    test("can answer any number of visitors", async () => {
      await using chat = await subject.open();
      const { user } = newChat();
      for (let n = 0; n <= 2 * MAX_UNANSWERED; n++) {
        const where = { user, visitor: newVisitorId() };
        await write(chat.history, where, "x");
        expect(await answer(chat.history, where)).toMatchObject({ ok: true });
      }
      expect(await list(chat.history, "user", user)).toHaveLength(2 * MAX_UNANSWERED + 1);
    });
  });

  describe(`a visitor with ${MAX_UNANSWERED} unanswered recipients`, () => {
    const tooMany = { ok: false, error: "too_many_recipients" } as const;
    const writeTo = (
      history: ChatHistory,
      visitor: string,
      {
        user = newChat().user,
        atMs = AT_MS,
        ref,
      }: { user?: string; atMs?: number; ref?: string } = {},
    ) => history.append({ chat: { user, visitor }, from: "visitor", content: "x", atMs, ref });
    /** A visitor at the limit, and the recipients. */
    async function reachLimit(history: ChatHistory, atMs = AT_MS) {
      const visitor = newVisitorId();
      const users = Array.from({ length: MAX_UNANSWERED }, () => newChat().user);
      for (const user of users) await write(history, { user, visitor }, "x", { atMs });
      return { visitor, users, first: { user: users[0] as string, visitor } };
    }

    test("can't write to another one, and still to each of them", async () => {
      await using chat = await subject.open();
      const { visitor, users } = await reachLimit(chat.history);
      const refused = newChat().user;
      expect(await writeTo(chat.history, visitor, { user: refused })).toEqual(tooMany);
      expect(await chat.history.messages({ user: refused, visitor }, all)).toBeUndefined();
      for (const user of users) await write(chat.history, { user, visitor }, "y");
      expect(await list(chat.history, "visitor", visitor)).toHaveLength(MAX_UNANSWERED);
      await write(chat.history, { user: refused, visitor: newVisitorId() }, "another visitor");
    });

    test("can't whether the recipients exist or not", async () => {
      await using chat = await subject.open();
      const visitor = newVisitorId();
      const known = Array.from({ length: MAX_UNANSWERED }, newChat);
      for (const other of known) {
        await write(chat.history, other, "x");
        await write(chat.history, other, "answer", { from: "user" });
      }
      for (const [n, { user }] of known.entries()) {
        const to = n % 2 === 0 ? user : newChat().user;
        expect(await writeTo(chat.history, visitor, { user: to })).toMatchObject({ ok: true });
      }
      const { user } = known[1] as Chat;
      expect(await writeTo(chat.history, visitor, { user })).toEqual(tooMany);
      expect(await writeTo(chat.history, visitor)).toEqual(tooMany);
    });

    test("can't after deleting the chats, except to those same recipients", async () => {
      await using chat = await subject.open();
      const { visitor, users } = await reachLimit(chat.history);
      for (const user of users) await chat.history.remove({ user, visitor });
      expect(await list(chat.history, "visitor", visitor)).toEqual([]);
      expect(await writeTo(chat.history, visitor)).toEqual(tooMany);
      for (const user of users) {
        expect(await writeTo(chat.history, visitor, { user })).toMatchObject({ ok: true });
      }
      expect(await writeTo(chat.history, visitor)).toEqual(tooMany);
    });

    test("can write to one more after each first answer", async () => {
      await using chat = await subject.open();
      const { visitor, users } = await reachLimit(chat.history);
      for (const user of users.slice(0, 3)) {
        await write(chat.history, { user, visitor }, "answer", { from: "user" });
        await write(chat.history, { user, visitor }, "and another", { from: "user" });
        await write(chat.history, { user, visitor }, "thank you");
        expect(await writeTo(chat.history, visitor)).toMatchObject({ ok: true });
        expect(await writeTo(chat.history, visitor)).toEqual(tooMany);
      }
    });

    test("can write to one more after an answer in the same turn", async () => {
      await using chat = await subject.open();
      const { visitor, first } = await reachLimit(chat.history);
      const [, , freed, more] = await Promise.all([
        writeTo(chat.history, visitor),
        write(chat.history, first, "answer", { from: "user" }),
        writeTo(chat.history, visitor),
        writeTo(chat.history, visitor),
      ]);
      expect([freed.ok, more.ok]).toEqual([true, false]);
    });

    test("isn't limited by an answered chat that is deleted, but by writing to that user anew", async () => {
      await using chat = await subject.open();
      const { visitor, first } = await reachLimit(chat.history);
      await write(chat.history, first, "answer", { from: "user" });
      await chat.history.remove(first);
      expect(await writeTo(chat.history, visitor)).toMatchObject({ ok: true });
      expect(await writeTo(chat.history, visitor, first)).toEqual(tooMany);
    });

    test("can write to others 30 days after the first messages", async () => {
      await using chat = await subject.open();
      const { visitor, users, first } = await reachLimit(chat.history, AT_MS);
      // A later message to one of them, or a deletion, doesn't make it longer or shorter.
      await write(chat.history, first, "y", { atMs: AT_MS + DAY_MS });
      await chat.history.remove({ user: users[1] as string, visitor });
      const endMs = AT_MS + UNANSWERED_TTL_MS;
      expect(await writeTo(chat.history, visitor, { atMs: endMs - 1 })).toEqual(tooMany);
      for (let n = 0; n < MAX_UNANSWERED; n++) {
        const written = await writeTo(chat.history, visitor, { atMs: endMs });
        expect(written).toMatchObject({ ok: true });
      }
      expect(await writeTo(chat.history, visitor, { atMs: endMs })).toEqual(tooMany);
      await write(chat.history, first, "z", { atMs: endMs });
    });

    test("can't while a month of the clock has passed for half of them only", async () => {
      await using chat = await subject.open();
      const visitor = newVisitorId();
      const half = MAX_UNANSWERED / 2;
      const writeNow = () => writeTo(chat.history, visitor, { atMs: chat.clock.nowMs() });
      const writeSome = async (count: number) => {
        for (let n = 0; n < count; n++) expect(await writeNow()).toMatchObject({ ok: true });
      };
      await writeSome(half);
      chat.clock.advance(UNANSWERED_TTL_MS / 2);
      await writeSome(half);
      expect(await writeNow()).toEqual(tooMany);
      chat.clock.advance(UNANSWERED_TTL_MS / 2);
      await writeSome(half);
      expect(await writeNow()).toEqual(tooMany);
    });

    test("may send a refused message again under its ref once there is room", async () => {
      await using chat = await subject.open();
      const { visitor, first } = await reachLimit(chat.history);
      const late = { user: newChat().user, ref: "r" };
      expect(await writeTo(chat.history, visitor, late)).toEqual(tooMany);
      await write(chat.history, first, "answer", { from: "user" });
      const written = await writeTo(chat.history, visitor, late);
      expect(written).toMatchObject({ ok: true });
      const repeated = { ...written, isUnanswered: false };
      expect(await writeTo(chat.history, visitor, late)).toEqual(repeated as never);
      await chat.history.remove({ user: late.user, visitor });
      expect(await writeTo(chat.history, visitor)).toEqual(tooMany);
      expect(await writeTo(chat.history, visitor, late)).toEqual(repeated as never);
    });

    test("and no more also when all are written to at once", async () => {
      await using chat = await subject.open();
      const visitor = newVisitorId();
      const outcomes = await Promise.all(
        Array.from({ length: 3 * MAX_UNANSWERED }, () => writeTo(chat.history, visitor)),
      );
      expect(outcomes.filter(({ ok }) => ok)).toHaveLength(MAX_UNANSWERED);
      for (const one of outcomes) if (!one.ok) expect(one).toEqual(tooMany);
      expect(await list(chat.history, "visitor", visitor)).toHaveLength(MAX_UNANSWERED);
    });
  });

  describe("retention", () => {
    test("maxMessages: the oldest are deleted, and unread counts no more than there are", async () => {
      await using chat = await subject.open({ maxMessages: 5 });
      const [where, other] = [newChat(), newChat()];
      await write(chat.history, other, "other");
      for (let n = 0; n < 12; n++) await write(chat.history, where, `${n}`);
      expect(await contents(chat.history, where)).toEqual(["7", "8", "9", "10", "11"]);
      expect(await contents(chat.history, other)).toEqual(["other"]);
      expect(await list(chat.history, "user", where.user)).toMatchObject([
        { unread: 5, lastMessage: { content: "11" } },
      ]);
    });

    test("maxAgeMs: older messages are on no page, neither the first nor the last", async () => {
      await using chat = await subject.open({ maxAgeMs: 30 * DAY_MS });
      const where = newChat();
      const nowMs = chat.clock.nowMs();
      await begin(chat.history, where, { atMs: nowMs - 31 * DAY_MS });
      for (let n = 0; n < 20; n++) {
        await write(chat.history, where, `old ${n}`, { atMs: nowMs - 30 * DAY_MS - 1_000 + n });
      }
      await write(chat.history, where, "just in time", { atMs: nowMs - 30 * DAY_MS + 1_000 });
      chat.clock.advance(500);
      await write(chat.history, where, "new", { atMs: chat.clock.nowMs() });
      const first = await chat.history.messages(where, { limit: 5 });
      expect(first?.messages.map(({ content }) => content)).toEqual(["just in time", "new"]);
      const last = await chat.history.messages(where, { beforeId: "999999999999999", limit: 5 });
      expect(last).toEqual(first as never);
    });

    test("maxAgeMs: messages that grow old in a quiet chat are on no page and in no list", async () => {
      await using chat = await subject.open({ maxAgeMs: DAY_MS });
      const where = newChat();
      await begin(chat.history, where, { atMs: chat.clock.nowMs() });
      for (let n = 0; n < 20; n++) {
        await write(chat.history, where, `${n}`, {
          atMs: chat.clock.nowMs() + (n < 15 ? 0 : 60_000),
        });
      }
      chat.clock.advance(DAY_MS + 1);
      expect(await chat.history.messages(where, { limit: 5 })).toMatchObject({
        messages: ["15", "16", "17", "18", "19"].map((content) => ({ content })),
      });
      chat.clock.advance(60_000);
      expect((await chat.history.messages(where, { limit: 5 }))?.messages ?? []).toEqual([]);
      expect(await list(chat.history, "user", where.user)).toEqual([]);
      expect(await list(chat.history, "visitor", where.visitor)).toEqual([]);
    });

    test("everything is kept where both are 0", async () => {
      await using chat = await subject.open({ maxMessages: 0, maxAgeMs: 0 });
      const where = newChat();
      for (let n = 0; n < 10; n++) await write(chat.history, where, `${n}`, { atMs: n });
      chat.clock.advance(10_000 * DAY_MS);
      expect(await contents(chat.history, where)).toHaveLength(10);
      expect(await list(chat.history, "user", where.user)).toHaveLength(1);
    });
  });

  describe(`a visitor with ${MAX_UNANSWERED_MESSAGES} unanswered messages to a user`, () => {
    const tooMany = { ok: false, error: "too_many_messages" } as const;
    const writeTo = (
      history: ChatHistory,
      where: Chat,
      options: { atMs?: number; ref?: string; onlyAnswered?: boolean } = {},
    ) => history.append({ chat: where, from: "visitor", content: "x", atMs: AT_MS, ...options });
    async function reachLimit(history: ChatHistory): Promise<Chat> {
      const where = newChat();
      for (let n = 0; n < MAX_UNANSWERED_MESSAGES; n++) {
        const written = await writeTo(history, where, { ref: `${n}` });
        expect(written).toMatchObject({ ok: true, isUnanswered: true });
      }
      return where;
    }

    test("can send no other one, and still to other users", async () => {
      await using chat = await subject.open();
      const where = await reachLimit(chat.history);
      expect(await writeTo(chat.history, where)).toEqual(tooMany);
      expect(await writeTo(chat.history, where, { ref: "new" })).toEqual(tooMany);
      expect(await writeTo(chat.history, where, { ref: "0" })).toMatchObject({ ok: true });
      expect(await contents(chat.history, where)).toHaveLength(MAX_UNANSWERED_MESSAGES);
      await write(chat.history, { ...where, user: newChat().user }, "to somebody else");
      await write(chat.history, { ...where, visitor: newVisitorId() }, "from somebody else");
    });

    test("can send any number once the user has answered", async () => {
      await using chat = await subject.open();
      const where = await reachLimit(chat.history);
      const answer = await chat.history.append({
        ...{ chat: where, from: "user", content: "answer", atMs: AT_MS },
      });
      expect(answer).toMatchObject({ ok: true, isUnanswered: false });
      for (let n = 0; n < 2 * MAX_UNANSWERED_MESSAGES; n++) {
        const written = await writeTo(chat.history, where);
        expect(written).toMatchObject({ ok: true, isUnanswered: false });
      }
    });

    test("can't after the chat was marked as read or deleted, nor when old messages were dropped", async () => {
      await using chat = await subject.open({ maxMessages: 5 });
      const where = await reachLimit(chat.history);
      await chat.history.markRead(where, "user");
      expect(await writeTo(chat.history, where)).toEqual(tooMany);
      await chat.history.remove(where);
      expect(await writeTo(chat.history, where)).toEqual(tooMany);
      expect(await chat.history.messages(where, all)).toBeUndefined();
    });

    test("is counted over deletions", async () => {
      await using chat = await subject.open();
      const where = newChat();
      for (let n = 0; n < MAX_UNANSWERED_MESSAGES; n++) {
        await write(chat.history, where, `${n}`);
        await chat.history.remove(where);
      }
      expect(await writeTo(chat.history, where)).toEqual(tooMany);
    });

    test("can go on 30 days after the first of them", async () => {
      await using chat = await subject.open();
      const where = await reachLimit(chat.history);
      const endMs = AT_MS + UNANSWERED_TTL_MS;
      expect(await writeTo(chat.history, where, { atMs: endMs - 1 })).toEqual(tooMany);
      for (let n = 0; n < MAX_UNANSWERED_MESSAGES; n++) {
        expect(await writeTo(chat.history, where, { atMs: endMs })).toMatchObject({ ok: true });
      }
      expect(await writeTo(chat.history, where, { atMs: endMs })).toEqual(tooMany);
    });

    test("and no more also when all are sent at once", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const outcomes = await Promise.all(
        Array.from({ length: 2 * MAX_UNANSWERED_MESSAGES }, () => writeTo(chat.history, where)),
      );
      expect(outcomes.filter(({ ok }) => ok)).toHaveLength(MAX_UNANSWERED_MESSAGES);
    });

    test("sends none at all with onlyAnswered, unless there was an answer", async () => {
      await using chat = await subject.open();
      const [where, begun] = [newChat(), newChat()];
      const onlyAnswered = true;
      await write(chat.history, begun, "x");
      for (const one of [where, begun]) {
        expect(await writeTo(chat.history, one, { onlyAnswered })).toEqual(tooMany);
        await write(chat.history, one, "y");
        await write(chat.history, one, "answer", { from: "user" });
        const written = await writeTo(chat.history, one, { onlyAnswered });
        expect(written).toMatchObject({ ok: true });
      }
    });
  });

  describe("requests per minute", () => {
    test("so many at once, then one per interval; for each by itself", async () => {
      await using chat = await subject.open();
      const key = `user:${newVisitorId()}`;
      const intervalMs = 60_000 / REQUESTS_PER_MINUTE;
      const startMs = performance.now();
      const waits: number[] = [];
      // In parts, since each has to come within its deadline on a busy machine, too.
      while (waits.length < 2 * REQUESTS_PER_MINUTE) {
        const spending = Array.from({ length: 200 }, () => chat.history.spendRequests(key, 1));
        waits.push(...(await Promise.all(spending)));
      }
      // Redis has a clock of its own, by which time passes.
      const grownBack = Math.ceil((performance.now() - startMs) / intervalMs);
      const allowed = waits.filter((waitMs) => waitMs === 0).length;
      expect(allowed).toBeGreaterThanOrEqual(REQUESTS_PER_MINUTE);
      expect(allowed).toBeLessThanOrEqual(REQUESTS_PER_MINUTE + grownBack);
      for (const waitMs of waits) expect(waitMs).toBeLessThanOrEqual(intervalMs);
      expect(await chat.history.spendRequests(`user:${newVisitorId()}`, 1)).toBe(0);
    });
  });

  describe("long pages and lists", () => {
    const long = (n: number) => `${n}`.padEnd(4_000, "漢");

    test("a page is cut where its contents get too long, and the next one continues there", async () => {
      await using chat = await subject.open();
      const where = newChat();
      await begin(chat.history, where);
      const ids: string[] = [];
      const writing = Array.from({ length: 150 }, (_, n) => write(chat.history, where, long(n)));
      ids.push(...(await Promise.all(writing)));
      const seen: string[] = [];
      let afterId = (Number(ids[0]) - 1).toString();
      for (let more = true, pages = 0; more; pages++) {
        const page = await chat.history.messages(where, { afterId, limit: 200 });
        const length = page?.messages.reduce((sum, { content }) => sum + content.length, 0) ?? 0;
        expect(length).toBeLessThanOrEqual(MAX_PAGE_LENGTH);
        expect(length).toBeGreaterThan(0);
        seen.push(...(page?.messages.map(({ id }) => id) ?? []));
        afterId = seen.at(-1) as string;
        more = page?.more ?? false;
        expect(pages).toBeLessThan(20);
      }
      expect(seen).toEqual(ids);
      const last = await chat.history.messages(where, { beforeId: "999999999999999", limit: 200 });
      expect(last?.more).toBe(true);
      expect(last?.messages.length).toBeLessThan(150);
      expect(last?.messages.map(({ id }) => id)).toEqual(ids.slice(-(last?.messages.length ?? 0)));
    });

    test("more says whether there may be further messages", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const ids: string[] = [];
      for (let n = 0; n < 5; n++) ids.push(await write(chat.history, where, `${n}`));
      const more = async (page: { afterId?: string; beforeId?: string; limit: number }) =>
        (await chat.history.messages(where, page))?.more;
      expect(await more({ limit: 4 })).toBe(true);
      expect(await more({ limit: 6 })).toBe(false);
      expect(await more({ afterId: ids[0] as string, limit: 6 })).toBe(false);
      expect(await more({ beforeId: ids[4] as string, limit: 3 })).toBe(true);
      expect(await more({ beforeId: ids[4] as string, limit: 5 })).toBe(false);
    });

    test("a list shows the beginning of a long message, and no half of a character", async () => {
      await using chat = await subject.open();
      const where = newChat();
      const preview = async () =>
        (await list(chat.history, "user", where.user))[0]?.lastMessage.content;
      await write(chat.history, where, "x".repeat(200));
      expect(await preview()).toBe("x".repeat(200));
      await write(chat.history, where, "x".repeat(201));
      expect(await preview()).toBe(`${"x".repeat(199)}…`);
      await write(chat.history, where, "𝕏".repeat(200));
      expect(await preview()).toBe(`${"𝕏".repeat(99)}…`);
      expect(await contents(chat.history, where)).toContain("𝕏".repeat(200));
    });
  });

  describe("text is returned as it was written", () => {
    test.each(AWKWARD_TEXTS)("%s", async (_, text) => {
      await using chat = await subject.open();
      const where = newChat();
      const nickname = text.slice(0, 20);
      const id = await write(chat.history, where, text, { nickname, ref: text.slice(0, 50) });
      expect(await write(chat.history, where, text, { ref: text.slice(0, 50) })).toBe(id);
      const page = await chat.history.messages(where, all);
      expect(page?.messages).toMatchObject([{ id, content: text, nickname }]);
      const [seen] = await list(chat.history, "user", where.user);
      const start = text.length > 200 ? `${text.slice(0, 199)}…` : text;
      expect(seen).toMatchObject({ nickname, lastMessage: { content: start } });
      await chat.delivered.has(where, 1);
      const [event] = chat.delivered.events.filter(({ chat }) => chat.user === where.user);
      const { frame } = event as ChatEvent & { kind: "message" };
      expect(JSON.parse(frame)).toMatchObject({ content: text, nickname });
    });
  });

  test("user ids with special characters are kept apart", async () => {
    await using chat = await subject.open();
    const visitor = newVisitorId();
    for (const [, user] of AWKWARD_USERS) {
      const where = { user, visitor };
      await write(chat.history, where, `to ${user}`, { ref: "r" });
      await write(chat.history, where, `from ${user}`, { ref: "r", from: "user" });
      const blocked = { user, visitor: newVisitorId() };
      await write(chat.history, blocked, "blocked");
      await chat.history.setBlocked(blocked, true);
      await chat.history.remove(blocked);
    }
    for (const [, user] of AWKWARD_USERS) {
      const where = { user, visitor };
      expect(await contents(chat.history, where)).toEqual([`to ${user}`, `from ${user}`]);
      expect((await list(chat.history, "user", user)).map(({ peer }) => peer)).toEqual([visitor]);
      expect(await chat.history.markRead(where, "user")).toBeDefined();
      await chat.delivered.has(where, 3);
    }
    const peers = (await list(chat.history, "visitor", visitor)).map(({ peer }) => peer);
    expect(peers).toEqual(AWKWARD_USERS.map(([, user]) => user).toReversed());
    for (const [, user] of AWKWARD_USERS) {
      expect(await chat.history.remove({ user, visitor })).toBe(true);
      expect(await chat.history.messages({ user, visitor }, all)).toBeUndefined();
    }
    expect(await list(chat.history, "visitor", visitor)).toEqual([]);
  });

  test("visitor ids that differ in case or in one character are kept apart", async () => {
    await using chat = await subject.open();
    const { user } = newChat();
    const visitors = ["A", "a", "-", "_"].map((sign) => sign.repeat(21) + "A");
    for (const visitor of visitors) await write(chat.history, { user, visitor }, visitor);
    for (const visitor of visitors) {
      expect(await contents(chat.history, { user, visitor })).toEqual([visitor]);
    }
  });
}
