import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  type Chat,
  FAILING_MS,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  REF_TTL_MS,
  UNANSWERED_TTL_MS,
} from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import type { Side } from "../../src/wire/frames.ts";
import { begin, newChat, newVisitorId, write } from "../support/chat.ts";
import { fakeClock, settle, underClock } from "../support/clock.ts";
import { type OpenHistory, openSqlite, withFile } from "../support/history.ts";
import { visitorIdOf } from "../support/people.ts";
import { startInstance, startProcess } from "../support/process.ts";

const DAY_MS = 86_400_000;

/** Lets time pass, and then what is too old is deleted: every ten minutes. */
async function leap({ clock }: OpenHistory, ms: number): Promise<void> {
  clock.advance(ms);
  // What was begun meanwhile had no time.
  await settle();
  clock.advance(600_000);
  await settle();
}

describe("SQLite in a file", () => {
  test("everything is there when the file is opened again", () =>
    withFile(async (path) => {
      const where = newChat();
      const blocked = newChat();
      let id: string;
      {
        await using chat = await openSqlite(path);
        await write(chat.history, blocked, "before the block");
        id = await write(chat.history, where, "kept", { ref: "r", nickname: "Vis" });
        await chat.history.markRead(where, "user");
        await chat.history.setBlocked(blocked, true);
      }
      await using chat = await openSqlite(path);
      expect(await chat.history.messages(where, { limit: 10 })).toMatchObject({
        messages: [{ id, content: "kept", nickname: "Vis" }],
        readUpTo: { user: id, visitor: "0" },
      });
      expect(await write(chat.history, where, "kept", { ref: "r" })).toBe(id);
      expect(Number(await write(chat.history, where, "next"))).toBeGreaterThan(Number(id));
      const draft = { from: "visitor", content: "x", atMs: 1_800_000_000_000 } as const;
      expect(await chat.history.append({ chat: blocked, ...draft })).toMatchObject({ ok: false });
    }));

  test("ids go on rising after the newest messages were deleted", () =>
    withFile(async (path) => {
      const where = newChat();
      let id: string;
      {
        await using chat = await openSqlite(path);
        id = await write(chat.history, where, "x");
        await chat.history.remove(where);
      }
      await using chat = await openSqlite(path);
      expect(Number(await write(chat.history, where, "y"))).toBeGreaterThan(Number(id));
    }));

  test("close waits for writes in progress", () =>
    withFile(async (path) => {
      const where = newChat();
      const chat = await openSqlite(path);
      const writing = write(chat.history, where, "last words");
      await chat.history.close();
      await writing;
      await using again = await openSqlite(path);
      expect(await again.history.messages(where, { limit: 10 })).toMatchObject({
        messages: [{ content: "last words" }],
      });
    }));

  test("old messages leave the file, and a day-old ref is still recognised", () =>
    withFile(async (path) => {
      await using chat = await openSqlite(path, { maxAgeMs: 3 * DAY_MS });
      const where = newChat();
      const other = newChat();
      const id = await write(chat.history, where, "old", { ref: "r", atMs: chat.clock.nowMs() });
      chat.clock.advance(DAY_MS + 3_600_000);
      expect(await write(chat.history, where, "old", { ref: "r" })).toBe(id);
      await leap(chat, REF_TTL_MS);
      expect(
        await write(chat.history, where, "again", { ref: "r", atMs: chat.clock.nowMs() }),
      ).not.toBe(id);
      await leap(chat, DAY_MS);
      await write(chat.history, other, "between");
      using file = new Database(path, { readonly: true });
      const texts = file.query<{ content: string }, []>("SELECT content FROM messages").all();
      expect(texts.map(({ content }) => content)).not.toContain("old");
      expect((await chat.history.messages(where, { limit: 10 }))?.messages).toMatchObject([
        { content: "again" },
      ]);
    }));

  test("a chat with old messages only leaves the file", () =>
    withFile(async (path) => {
      await using chat = await openSqlite(path, { maxAgeMs: DAY_MS });
      const where = newChat();
      await write(chat.history, where, "old", { atMs: chat.clock.nowMs() });
      await leap(chat, 2 * DAY_MS);
      await write(chat.history, newChat(), "young", { atMs: chat.clock.nowMs() });
      expect(await chat.history.messages(where, { limit: 10 })).toBeUndefined();
    }));

  /** Something wrong with the file at the path; what it needs to be set right again. */
  type Spoil = (path: string) => Promise<Disposable | undefined | void>;
  const SPOILED: readonly (readonly [what: string, spoil: Spoil])[] = [
    [
      "of a newer version",
      async (path) => {
        await (await openSqlite(path)).history.close();
        using file = new Database(path);
        file.run("PRAGMA user_version = 4");
      },
    ],
    [
      "that belongs to something else",
      async (path) => {
        using file = new Database(path);
        file.run("CREATE TABLE invoices (id INTEGER)");
      },
    ],
    ...[1, 2, 3].map((version): (typeof SPOILED)[number] => [
      `of another program, with version ${version} by chance`,
      async (path) => {
        using file = new Database(path);
        file.run("CREATE TABLE messages (id INTEGER)");
        file.run(`PRAGMA user_version = ${version}`);
      },
    ]),
    [
      "that is no database",
      async (path) => void (await Bun.write(path, "Dear diary, ".repeat(1_000))),
    ],
    [
      "whose first page is damaged",
      async (path) => {
        await (await openSqlite(path)).history.close();
        const bytes = new Uint8Array(await Bun.file(path).arrayBuffer());
        bytes.fill(0xa5, 100, 4_096);
        await Bun.write(path, bytes);
      },
    ],
    [
      "that was truncated",
      async (path) => {
        await (await openSqlite(path)).history.close();
        const bytes = new Uint8Array(await Bun.file(path).arrayBuffer());
        await Bun.write(path, bytes.subarray(0, 6_000));
      },
    ],
    [
      "that is locked",
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

  describe("throws for a file", () => {
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

    test.each([0, 1])("of another program, and leaves every byte of it: version %i", (version) =>
      withFile(async (path) => {
        {
          using file = new Database(path);
          file.run("CREATE TABLE invoices (id INTEGER)");
          file.run(`PRAGMA user_version = ${version}`);
        }
        const before = await Bun.file(path).bytes();
        expect(() => sqliteChatHistory({ path, clock: fakeClock() })).toThrow();
        expect(await Bun.file(path).bytes()).toEqual(before);
      }),
    );

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

  test("a server whose file can't be used logs one line and exits with 78", () =>
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
    "a server whose file is read-only logs one line and exits with 78",
    () =>
      withFile(async (path) => {
        await (await openSqlite(path)).history.close();
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

  describe("while another process holds the file", () => {
    test("writing waits without blocking, and happens when the file is free", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        await write(chat.history, where, "before");
        using other = new Database(path);
        other.run("BEGIN IMMEDIATE");
        const writing = write(chat.history, where, "during");
        const marking = chat.history.markRead(where, "user");
        const startMs = performance.now();
        await chat.clock.pass(1_500);
        // SQLite itself would have slept for as long.
        expect(performance.now() - startMs).toBeLessThan(1_000);
        expect(chat.delivered.of(where)).toEqual(["before"]);
        other.run("ROLLBACK");
        const last = await underClock(chat.clock, writing);
        expect(await underClock(chat.clock, marking)).toBe(last);
        expect(chat.delivered.of(where)).toEqual(["before", "during", `user read ${last}`]);
      }));

    test("for 1.9 s, writing rejects; afterwards the same ref settles it", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        const id = await write(chat.history, where, "before", { ref: "1" });
        using other = new Database(path);
        other.run("BEGIN IMMEDIATE");
        const startMs = chat.clock.monotonicMs();
        const writing = Promise.allSettled([
          write(chat.history, where, "during", { ref: "2" }),
          chat.history.markRead(where, "user"),
          chat.history.remove(where),
          chat.history.setBlocked(where, true),
        ]);
        const outcomes = await underClock(chat.clock, writing);
        expect(outcomes.map(({ status }) => status)).toEqual(Array(4).fill("rejected"));
        expect(chat.clock.monotonicMs() - startMs).toBeGreaterThanOrEqual(1_900);
        expect(chat.clock.monotonicMs() - startMs).toBeLessThan(2_000);
        expect(await chat.history.messages(where, { limit: 10 })).toMatchObject({
          messages: [{ id }],
        });
        other.run("ROLLBACK");
        chat.clock.advance(FAILING_MS);
        expect(chat.delivered.of(where)).toEqual(["before"]);
        await write(chat.history, where, "during", { ref: "2" });
        await write(chat.history, where, "after", { ref: "3" });
        expect(chat.delivered.of(where)).toEqual(["before", "during", "after"]);
      }));

    test("what comes later from the same sender fails, too, and that of others doesn't", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const [where, other] = [newChat(), newChat()];
        using holder = new Database(path);
        holder.run("BEGIN IMMEDIATE");
        const first = write(chat.history, where, "first", { ref: "1" });
        await expect(underClock(chat.clock, first)).rejects.toThrow();
        holder.run("ROLLBACK");
        await expect(write(chat.history, where, "second", { ref: "2" })).rejects.toThrow();
        await write(chat.history, other, "of somebody else");
        chat.clock.advance(FAILING_MS - 1);
        await expect(write(chat.history, where, "second", { ref: "2" })).rejects.toThrow();
        chat.clock.advance(1);
        await write(chat.history, where, "first", { ref: "1" });
        await write(chat.history, where, "second", { ref: "2" });
        expect(chat.delivered.of(where)).toEqual(["first", "second"]);
      }));
  });

  test("messages of another process are read before the next write", () =>
    withFile(async (path) => {
      await using one = await openSqlite(path);
      await using two = await openSqlite(path);
      const where = newChat();
      for (let n = 0; n < 5; n++) await write(one.history, where, `one ${n}`);
      await write(two.history, where, "two", { ref: "r" });
      expect(await write(one.history, where, "two", { ref: "r" })).toBe("6");
      await write(one.history, where, "the end");
      const page = await one.history.messages(where, { limit: 10 });
      expect(page?.messages.map(({ id }) => id)).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
      const [seen] = await two.history.chats({ side: "user", id: where.user }, { limit: 1 });
      expect(seen).toMatchObject({ unread: 7, lastMessage: { content: "the end" } });
    }));

  test("stored messages are delivered although the next ones can't be stored", () =>
    withFile(async (path) => {
      await using chat = await openSqlite(path);
      const where = newChat();
      using other = new Database(path);
      let next: Promise<string> | undefined;
      const first = chat.history.append({
        ...{ chat: where, from: "visitor", atMs: chat.clock.nowMs() },
        // Read inside the transaction: what is queued here comes right after it.
        get content() {
          queueMicrotask(() => {
            other.run("BEGIN IMMEDIATE");
            next = write(chat.history, where, "second");
            next.catch(() => {});
          });
          return "first";
        },
      });
      expect(await first).toMatchObject({ ok: true });
      await expect(underClock(chat.clock, next as Promise<string>)).rejects.toThrow();
      expect(chat.delivered.of(where)).toEqual(["first"]);
    }));

  // A limit on the size of files that is lifted later: what a full disk is, without a disk.
  const prlimit = Bun.which("prlimit");
  test.skipIf(!prlimit)(
    "on a full disk nothing is acknowledged, the socket stays open, and all is well when there is room",
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
        await using user = await server.openUser("alice");
        await say(-1);
        user.send({ type: "USER_TO_ANON", to: visitorIdOf(cookie), content: "answer" });
        await visitor.next(({ content }) => content === "answer");
        let count = 0;
        let answer = await say(0);
        while (answer.type === "ACK" && count < 2_000) answer = await say(++count);
        expect(answer).toMatchObject({ type: "ERROR", code: "unavailable" });
        expect(await say(count)).toMatchObject({ type: "ERROR", code: "unavailable" });
        const room = ["prlimit", "--pid", `${server.pid}`, "--fsize=unlimited:unlimited"];
        expect(Bun.spawnSync(room).exitCode).toBe(0);
        let first = await say(count);
        while (first.type !== "ACK") first = await say(count);
        const [again] = [await say(count), await say(count + 1)];
        expect(again?.id).toBe(first.id);
        const page = await server.ask("/api/chats/alice/messages?limit=200", { cookie });
        const told = page.body.messages.map(({ content }: { content: string }) =>
          parseInt(content, 10),
        );
        expect(told).toEqual(
          [-1, Number.NaN, ...Array.from({ length: count + 2 }, (_, n) => n)].slice(0, told.length),
        );
      }),
  );
});

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
          ...["blocks", "chats", "messages", "refs", "sqlite_sequence", "unanswered"],
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
