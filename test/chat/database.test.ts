import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync, renameSync, statSync, unlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { openDatabase } from "../../src/chat/database.ts";
import { type Chat, FAILING_MS, MAX_BLOCKS, REF_TTL_MS } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { faultCode } from "../../src/lib/log.ts";
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

  test("a server that finds the disk full when it starts exits with 1: it may be better next time", () =>
    withFile(async (path) => {
      await using server = startProcess(
        { CHAT_DATABASE: path },
        { within: ["sh", "-c", `trap "" XFSZ; ulimit -f 0; exec "$@"`, "sh"] },
      );
      expect(await server.exited).toBe(1);
      expect(server.events).toMatchObject([
        // What SQLite says of a limit on the size of files, which stands for the disk.
        { event: "open_failed", variable: "CHAT_DATABASE", code: "disk_failed" },
      ]);
    }));

  test("is created for its owner alone, its siblings included", () =>
    withFile(async (path) => {
      await using chat = await openSqlite(path);
      await write(chat.history, newChat(), "private");
      for (const file of [path, `${path}-wal`, `${path}-shm`]) {
        expect([file, (statSync(file).mode & 0o777).toString(8)]).toEqual([file, "600"]);
      }
    }));

  test("keeps the mode that its owner has given it", () =>
    withFile(async (path) => {
      await (await openSqlite(path)).history.close();
      chmodSync(path, 0o640);
      await (await openSqlite(path)).history.close();
      expect(statSync(path).mode & 0o777).toBe(0o640);
    }));

  test.each<[string, (path: string) => void]>([
    ["deleted", (path) => unlinkSync(path)],
    ["moved away", (path) => renameSync(path, `${path}.old`)],
    [
      "replaced",
      (path) => {
        copyFileSync(path, `${path}.copy`);
        renameSync(`${path}.copy`, path);
      },
    ],
  ])("nothing is acknowledged once the file was %s", (_, spoil) =>
    withFile(async (path) => {
      await using chat = await openSqlite(path);
      const where = newChat();
      await write(chat.history, where, "before");
      spoil(path);
      expect(await write(chat.history, where, "after").catch(faultCode)).toBe("file_gone");
      expect(chat.delivered.of(where)).toEqual(["before"]);
    }),
  );

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

  test("a commit that failed leaves no trace: not in counts, ids or deliveries", async () => {
    await using chat = await openSqlite(":memory:");
    const [where, other] = [newChat(), newChat()];
    expect(await write(chat.history, where, "before")).toBe("1");
    const outcomes = await Promise.allSettled([
      write(chat.history, where, "lost"),
      chat.history.append({
        ...{ chat: newChat(), from: "visitor", atMs: chat.clock.nowMs() },
        get content(): string {
          throw new Error("Read inside the transaction");
        },
      }),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    chat.clock.advance(FAILING_MS);
    expect(await write(chat.history, other, "next")).toBe("2");
    const seen = async () => {
      const [one] = await chat.history.chats({ side: "user", id: where.user }, { limit: 1 });
      return [one?.unread, one?.lastMessage.content];
    };
    expect(await seen()).toEqual([1, "before"]);
    await write(chat.history, where, "after");
    expect(await seen()).toEqual([2, "after"]);
    expect(chat.delivered.of(where)).toEqual(["before", "after"]);
  });

  test("a chat with messages before and after those of 10,000 others has all of them", async () => {
    await using chat = await openSqlite(":memory:");
    const where = newChat();
    const others = Array.from({ length: 10_000 }, newChat);
    // In one transaction, which has more chats than are cached.
    await Promise.all([where, ...others, where].map((one) => write(chat.history, one, "x")));
    const [seen] = await chat.history.chats({ side: "user", id: where.user }, { limit: 1 });
    expect(seen?.unread).toBe(2);
  });

  test("what is written in the same transaction as old messages are deleted is counted", async () => {
    await using chat = await openSqlite(":memory:", { maxAgeMs: 1_000 });
    const where = newChat();
    const nowMs = chat.clock.nowMs();
    await write(chat.history, where, "old", { atMs: nowMs });
    const unread = async () => {
      const [seen] = await chat.history.chats({ side: "user", id: where.user }, { limit: 1 });
      return seen?.unread;
    };
    // The deletion is due every ten minutes.
    chat.clock.advance(599_999);
    for (const expected of [1, 2]) {
      const writing = write(chat.history, where, "new", { atMs: nowMs + 600_000 });
      chat.clock.advance(1);
      await writing;
      expect(await unread()).toBe(expected);
    }
  });

  describe("the write-ahead log", () => {
    const MB = 1024 * 1024;
    const sizeMb = async (path: string) => (await stat(`${path}-wal`)).size / MB;

    /** Writes this much, in many transactions. */
    async function fill(chat: OpenHistory, where: Chat, mb: number): Promise<void> {
      const content = "x".repeat(4_000);
      for (let left = mb * MB; left > 0; left -= 64 * content.length) {
        await Promise.all(Array.from({ length: 64 }, () => write(chat.history, where, content)));
      }
    }

    test("moves to the file as it grows", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        await begin(chat.history, where);
        await fill(chat, where, 16);
        expect(await sizeMb(path)).toBeLessThan(12);
        expect((await stat(path)).size / MB).toBeGreaterThan(8);
      }));

    test("is cut down to 16 MB after somebody who read for long has left", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        await begin(chat.history, where);
        {
          using reader = new Database(path, { readonly: true });
          reader.run("BEGIN");
          reader.query("SELECT count(*) FROM messages").get();
          await fill(chat, where, 24);
          expect(await sizeMb(path)).toBeGreaterThan(20);
        }
        await fill(chat, where, 1);
        expect(await sizeMb(path)).toBeLessThanOrEqual(16.1);
      }));

    test("is on disk before a message is acknowledged, and whoever writes waits for nobody inside SQLite", () =>
      withFile(async (path) => {
        using db = openDatabase(path);
        const of = (name: string) =>
          Object.values(db.query(`PRAGMA ${name}`).get() as Record<string, unknown>)[0];
        expect(of("journal_mode")).toBe("wal");
        // FULL: each transaction is synced.
        expect(of("synchronous")).toBe(2);
        expect(of("busy_timeout")).toBe(0);
        expect(of("cache_size")).toBe(-16_384);
      }));

    test("opening waits a moment for another process that holds the file", () =>
      withFile(async (path) => {
        await (await openSqlite(path)).history.close();
        const hold = `
          import { Database } from "bun:sqlite";
          const db = new Database(${JSON.stringify(path)});
          db.run("BEGIN IMMEDIATE");
          process.stdout.write("held");
          setTimeout(() => db.run("COMMIT"), 100);
        `;
        const holder = Bun.spawn([process.execPath, "-e", hold], { stdout: "pipe" });
        await holder.stdout.getReader().read();
        const chat = await openSqlite(path);
        await write(chat.history, newChat(), "x");
        await chat.history.close();
        await holder.exited;
      }));
  });

  test(`a user has ${MAX_BLOCKS} visitors blocked at most`, () =>
    withFile(async (path) => {
      await using chat = await openSqlite(path);
      const where = newChat();
      const other = { ...where, visitor: newVisitorId() };
      for (const one of [where, other]) await write(chat.history, one, "x");
      {
        using file = new Database(path);
        const insert = file.query("INSERT INTO blocks VALUES (?, ?)");
        file.transaction(() => {
          for (let n = 1; n < MAX_BLOCKS; n++) insert.run(where.user, `visitor ${n}`);
        })();
      }
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      expect(await chat.history.setBlocked(other, true)).toBe("too_many");
      await write(chat.history, other, "not blocked");
      expect(await chat.history.setBlocked(where, true)).toBe("done");
      expect(await chat.history.setBlocked(where, false)).toBe("done");
      expect(await chat.history.setBlocked(other, true)).toBe("done");
    }));

  describe("thousands of rows to delete", () => {
    const COUNT = 2_600;
    const SLICE = 500;

    /** A chat with so many messages, and what happens to the number of rows while `run` deletes them. */
    async function watch(
      path: string,
      chat: OpenHistory,
      run: () => Promise<unknown>,
    ): Promise<number[]> {
      using file = new Database(path, { readonly: true });
      const count = () =>
        file.query<{ count: number }, []>("SELECT count(*) AS count FROM messages").get()?.count ??
        0;
      const counts = [count()];
      let isOver = false;
      const running = run().finally(() => {
        isOver = true;
      });
      while (!isOver) {
        await write(chat.history, newChat(), "meanwhile", { atMs: chat.clock.nowMs() });
        counts.push(count());
      }
      await running;
      return counts;
    }

    async function fill(chat: OpenHistory, where: Chat): Promise<void> {
      await begin(chat.history, where, { atMs: chat.clock.nowMs() });
      await Promise.all(
        Array.from({ length: COUNT }, (_, n) =>
          write(chat.history, where, `${n}`, { atMs: chat.clock.nowMs(), ref: `${n}` }),
        ),
      );
    }

    function expectSlices(counts: readonly number[]): void {
      for (const [at, count] of counts.entries()) {
        expect((counts[at - 1] ?? count) - count).toBeLessThanOrEqual(SLICE);
      }
      // The writes in between were not held up.
      expect(counts.length).toBeGreaterThan(COUNT / SLICE);
    }

    test("with a chat that is deleted go in slices, between which others write", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        await fill(chat, where);
        const counts = await watch(path, chat, async () => {
          expect(await chat.history.remove(where)).toBe(true);
        });
        expectSlices(counts);
        expect(await chat.history.messages(where, { limit: 1 })).toBeUndefined();
        using file = new Database(path, { readonly: true });
        const left = file.query("SELECT count(*) AS count FROM messages").get();
        expect(left).toEqual({ count: counts.length - 1 });
      }));

    test("are written to the file between slices, not all in one commit later", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path);
        const where = newChat();
        await fill(chat, where);
        const { size } = await stat(path);
        await chat.history.remove(where);
        expect((await stat(path)).size).toBeGreaterThan(size);
      }));

    test("because they are old go in slices, between which others write", () =>
      withFile(async (path) => {
        await using chat = await openSqlite(path, { maxAgeMs: 3 * DAY_MS });
        const where = newChat();
        await fill(chat, where);
        chat.clock.advance(4 * DAY_MS);
        await settle();
        using file = new Database(path, { readonly: true });
        const isClean = () =>
          file.query("SELECT 1 FROM messages WHERE content = '0'").get() === null &&
          file.query("SELECT 1 FROM chats WHERE user = ?").get(where.user) === null &&
          file.query("SELECT 1 FROM refs").get() === null;
        const counts = await watch(path, chat, async () => {
          chat.clock.advance(600_000);
          while (!isClean()) await settle(1);
        });
        expectSlices(counts);
      }));

    test("because there are too many go in slices with the messages that come", () =>
      withFile(async (path) => {
        const where = newChat();
        {
          await using chat = await openSqlite(path, { maxMessages: 0 });
          await fill(chat, where);
        }
        await using chat = await openSqlite(path, { maxMessages: 10 });
        using file = new Database(path, { readonly: true });
        const count = () =>
          Number(Object.values(file.query("SELECT count(*) FROM messages").get() as object)[0]);
        let before = count();
        for (let n = 0; before > 10; n++) {
          await write(chat.history, where, `${n}`, { atMs: chat.clock.nowMs() });
          expect(before + 1 - count()).toBeLessThanOrEqual(SLICE);
          expect(count()).toBeLessThan(before);
          before = count();
        }
        const page = await chat.history.messages(where, { limit: 200 });
        expect(page?.messages).toHaveLength(10);
        const [seen] = await chat.history.chats({ side: "user", id: where.user }, { limit: 1 });
        expect(seen?.unread).toBe(10);
      }));
  });

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
        const limit = (bytes: string) =>
          Bun.spawnSync(["prlimit", "--pid", `${server.pid}`, `--fsize=${bytes}:unlimited`]);
        // Not even a page more, which is all that the probe needs.
        expect(limit("1").exitCode).toBe(0);
        expect((await server.ask("/readyz")).status).toBe(503);
        expect(limit("unlimited").exitCode).toBe(0);
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
