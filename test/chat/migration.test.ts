import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import {
  type Chat,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  UNANSWERED_TTL_MS,
} from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import type { Side } from "../../src/wire/frames.ts";
import { begin, newChat, newVisitorId, write } from "../support/chat.ts";
import { fakeClock } from "../support/clock.ts";
import { type OpenHistory, openSqlite, withFile } from "../support/history.ts";

/** What the tables are like, once the file was opened. */
async function columnsOf(path: string): Promise<unknown[]> {
  await (await openSqlite(path)).history.close();
  using file = new Database(path, { readonly: true });
  return file
    .query(
      "SELECT m.name AS t, p.name, p.type, p.\"notnull\", p.dflt_value, p.pk FROM sqlite_schema AS m, pragma_table_info(m.name) AS p WHERE m.type = 'table' ORDER BY m.name, p.name",
    )
    .all();
}

/** The tables of version 1, which counted recipients who had never signed in. */
const SCHEMA_1 = `
  CREATE TABLE chats (
    key INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    visitor TEXT NOT NULL,
    nickname TEXT,
    messages INTEGER NOT NULL DEFAULT 0,
    last_id INTEGER NOT NULL DEFAULT 0,
    user_read INTEGER NOT NULL DEFAULT 0,
    visitor_read INTEGER NOT NULL DEFAULT 0,
    user_unread INTEGER NOT NULL DEFAULT 0,
    visitor_unread INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user, visitor)
  );
  CREATE INDEX chats_of_user ON chats (user, last_id);
  CREATE INDEX chats_of_visitor ON chats (visitor, last_id);
  CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat INTEGER NOT NULL,
    side TEXT NOT NULL,
    content TEXT NOT NULL,
    nickname TEXT,
    at_ms INTEGER NOT NULL
  );
  CREATE INDEX messages_of_chat ON messages (chat, id);
  CREATE TABLE refs (
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    ref TEXT NOT NULL,
    id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (sender, recipient, ref)
  ) WITHOUT ROWID;
  CREATE INDEX refs_by_age ON refs (at_ms);
  CREATE TABLE blocks (user TEXT, visitor TEXT, PRIMARY KEY (user, visitor)) WITHOUT ROWID;
  CREATE TABLE users (id TEXT PRIMARY KEY) WITHOUT ROWID;
  PRAGMA user_version = 1;
  PRAGMA journal_mode = WAL;
`;

describe("a file of version 1", () => {
  const visitor = newVisitorId();
  const stranger = newVisitorId();
  /** The first answer is alice's second message; bob never answered; carol wrote first, as users could. */
  const MESSAGES: readonly (readonly [user: string, visitor: string, side: Side, text: string])[] =
    [
      ["alice", visitor, "visitor", "to alice"],
      ["alice", visitor, "user", "from alice"],
      ["bob", visitor, "visitor", "to bob"],
      ["bob", visitor, "visitor", "again to bob"],
      ["carol", stranger, "user", "from carol"],
    ];
  const CHATS: readonly (readonly [user: string, visitor: string])[] = [
    ["alice", visitor],
    ["bob", visitor],
    ["carol", stranger],
  ];
  const FIRST_MS = Date.parse("2025-12-31T00:00:00Z");

  function write1(path: string): void {
    using file = new Database(path);
    file.run(SCHEMA_1);
    for (const [at, [user, of]] of CHATS.entries()) {
      const own = MESSAGES.flatMap((message, n) =>
        message[0] === user ? [{ id: n + 1, side: message[2] }] : [],
      );
      const unread = own.filter(({ side }) => side === "visitor").length;
      const last = own.at(-1)?.id ?? 0;
      file.run(
        "INSERT INTO chats (key, user, visitor, nickname, messages, last_id, user_read, user_unread) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [at + 1, user, of, "Vis", own.length, last, 1, unread],
      );
    }
    for (const [n, [user, , side, content]] of MESSAGES.entries()) {
      const chat = CHATS.findIndex(([name]) => name === user) + 1;
      file.run("INSERT INTO messages VALUES (?, ?, ?, ?, NULL, ?)", [
        ...[n + 1, chat, side, content, FIRST_MS + n],
      ] as never);
    }
    file.run("INSERT INTO refs VALUES (?, 'bob', 'r', 4, ?)", [`visitor:${visitor}`, FIRST_MS + 3]);
    file.run("INSERT INTO blocks VALUES ('carol', ?)", [stranger]);
    file.run("INSERT INTO users VALUES ('alice'), ('bob')");
  }

  async function withFile1(run: (path: string, chat: OpenHistory) => Promise<void>): Promise<void> {
    await withFile(async (path) => {
      write1(path);
      await using chat = await openSqlite(path);
      await run(path, chat);
    });
  }
  const all = { limit: 200 };
  const tooMany = { ok: false, error: "too_many_recipients" } as const;
  const writeTo = (chat: OpenHistory, user: string, atMs = chat.clock.nowMs()) =>
    chat.history.append({ chat: { user, visitor }, from: "visitor", content: "x", atMs });

  test("keeps chats, messages, read marks, refs and blocks", () =>
    withFile1(async (_, chat) => {
      for (const [user, of] of CHATS) {
        const page = await chat.history.messages({ user, visitor: of }, all);
        const texts = MESSAGES.flatMap(([name, , , text]) => (name === user ? [text] : []));
        expect(page?.messages.map(({ content }) => content)).toEqual(texts);
        expect(page?.readUpTo).toEqual({ user: "1", visitor: "0" });
      }
      const [bob, alice] = await chat.history.chats({ side: "visitor", id: visitor }, all);
      expect([bob, alice]).toMatchObject([
        { peer: "bob", nickname: "Vis", lastMessage: { id: "4", content: "again to bob" } },
        { peer: "alice", nickname: "Vis", lastMessage: { id: "2", content: "from alice" } },
      ]);
      const [ofBob] = await chat.history.chats({ side: "user", id: "bob" }, all);
      expect(ofBob).toMatchObject({ unread: 2, blocked: false });
      const bobs = { user: "bob", visitor };
      expect(await write(chat.history, bobs, "repeated", { ref: "r" })).toBe("4");
      const blocked = { chat: { user: "carol", visitor: stranger }, from: "visitor" } as const;
      expect(await chat.history.append({ ...blocked, content: "x", atMs: FIRST_MS })).toEqual({
        ok: false,
        error: "blocked",
      });
      expect(await write(chat.history, bobs, "new")).toBe("6");
    }));

  test("counts chats without an answer as unanswered, whoever was known", () =>
    withFile1(async (_, chat) => {
      for (let n = 1; n < MAX_UNANSWERED; n++) {
        expect(await writeTo(chat, `user ${n}`)).toMatchObject({ ok: true });
      }
      expect(await writeTo(chat, "one more")).toEqual(tooMany);
      expect(await writeTo(chat, "bob")).toMatchObject({ ok: true });
      expect(await writeTo(chat, "alice")).toMatchObject({ ok: true });
      await write(chat.history, { user: "alice", visitor }, "frees nobody", { from: "user" });
      expect(await writeTo(chat, "one more")).toEqual(tooMany);
      await write(chat.history, { user: "bob", visitor }, "an answer", { from: "user" });
      expect(await writeTo(chat, "one more")).toMatchObject({ ok: true });
      expect(await writeTo(chat, "yet another")).toEqual(tooMany);
    }));

  test("counts them for 30 days from their last message", () =>
    withFile1(async (_, chat) => {
      const endMs = FIRST_MS + 3 + UNANSWERED_TTL_MS;
      for (let n = 1; n < MAX_UNANSWERED; n++) await writeTo(chat, `user ${n}`, endMs - 1);
      expect(await writeTo(chat, "one more", endMs - 1)).toEqual(tooMany);
      expect(await writeTo(chat, "one more", endMs)).toMatchObject({ ok: true });
    }));

  test("lets users go on in chats that they began", () =>
    withFile1(async (_, chat) => {
      const began = { user: "carol", visitor: stranger };
      await write(chat.history, began, "Are you there?", { from: "user" });
      await chat.history.setBlocked(began, false);
      await write(chat.history, began, "I am");
      for (let n = 0; n < MAX_UNANSWERED; n++) {
        await write(chat.history, { user: `user ${n}`, visitor: stranger }, "x");
      }
    }));

  test("is of version 3 afterwards, without the table users, and opens again", () =>
    withFile(async (path) => {
      write1(path);
      for (let round = 0; round < 2; round++) {
        await (await openSqlite(path)).history.close();
        using file = new Database(path, { readonly: true });
        expect(file.query("PRAGMA user_version").get()).toEqual({ user_version: 3 });
        const tables = file.query("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
        expect(tables.map((row) => (row as { name: string }).name).toSorted()).toEqual([
          ...["blocks", "chats", "messages", "profiles", "refs", "sqlite_sequence", "unanswered"],
        ]);
        expect(file.query("SELECT visitor, user, messages FROM unanswered").all()).toEqual([
          { visitor, user: "bob", messages: 2 },
        ]);
      }
    }));

  test("has the columns of a new file", () =>
    withFile(async (path) => {
      write1(path);
      expect(await columnsOf(path)).toEqual(await columnsOf(`${path}.new`));
    }));

  test("stays at version 1 when the migration fails", () =>
    withFile(async (path) => {
      write1(path);
      {
        using file = new Database(path);
        file.run("CREATE TABLE unanswered (id INTEGER)");
      }
      expect(() => sqliteChatHistory({ path, clock: fakeClock() })).toThrow();
      using file = new Database(path);
      expect(file.query("PRAGMA user_version").get()).toEqual({ user_version: 1 });
      expect(file.query("SELECT count(*) AS count FROM users").get()).toEqual({ count: 2 });
      file.run("DROP TABLE unanswered");
      await using chat = await openSqlite(path);
      expect(await chat.history.chats({ side: "user", id: "bob" }, all)).toHaveLength(1);
    }));
});

describe("a file of version 2", () => {
  const all = { limit: 200 };

  /** As version 2 left it, with a visitor who has three messages unanswered and one recipient who answered. */
  async function write2(path: string, where: Chat, answered: Chat): Promise<void> {
    {
      await using chat = await openSqlite(path);
      for (let n = 0; n < 3; n++) await write(chat.history, where, `${n}`);
      await begin(chat.history, answered);
    }
    using file = new Database(path);
    file.run("ALTER TABLE unanswered DROP COLUMN messages");
    file.run("PRAGMA user_version = 2");
  }

  test("keeps everything, and goes on counting from the messages that there are", () =>
    withFile(async (path) => {
      const [where, answered] = [newChat(), newChat()];
      await write2(path, where, answered);
      await using chat = await openSqlite(path);
      expect((await chat.history.messages(where, all))?.messages).toHaveLength(3);
      for (let n = 3; n < MAX_UNANSWERED_MESSAGES; n++) await write(chat.history, where, `${n}`);
      await expect(write(chat.history, where, "one more")).rejects.toThrow("too_many_messages");
      for (let n = 0; n <= MAX_UNANSWERED_MESSAGES; n++) await write(chat.history, answered, "x");
    }));

  test("has the columns of a new file", () =>
    withFile(async (path) => {
      await write2(path, newChat(), newChat());
      expect(await columnsOf(path)).toEqual(await columnsOf(`${path}.new`));
    }));
});
