import type { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { openDatabase } from "../../src/chat/database.ts";
import { REF_TTL_MS, UNANSWERED_TTL_MS } from "../../src/chat/history.ts";
import { createSweeper, SLICE } from "../../src/chat/retention.ts";

const NOW_MS = 1_800_000_000_000;
const DAY_MS = 86_400_000;

function countOf(db: Database, table: string): number {
  return Number(Object.values(db.query(`SELECT count(*) FROM ${table}`).get() as object)[0]);
}

/** Sweeps until nothing is left to delete; returns how many rows of a table went with each slice. */
function sweepAll(db: Database, table: string, maxAgeMs = 0): number[] {
  const sweeper = createSweeper(db, { maxAgeMs });
  const deleted: number[] = [];
  for (let isDone = false; !isDone;) {
    const before = countOf(db, table);
    isDone = sweeper.sweepSlice(NOW_MS);
    deleted.push(before - countOf(db, table));
    expect(deleted.length).toBeLessThan(20);
  }
  return deleted;
}

describe("a slice deletes 500 rows of a kind at most, and the last one says so", () => {
  const ROWS = 2 * SLICE + 200;
  const KINDS: readonly (readonly [
    table: string,
    add: (db: Database, n: number, atMs: number) => void,
    ttlMs: number,
  ])[] = [
    [
      "refs",
      (db, n, atMs) => db.run("INSERT INTO refs VALUES (?, 'b', 'r', ?, ?)", [`${n}`, n, atMs]),
      REF_TTL_MS,
    ],
    [
      "unanswered",
      (db, n, atMs) => db.run("INSERT INTO unanswered VALUES (?, 'b', ?, 1)", [`${n}`, atMs]),
      UNANSWERED_TTL_MS,
    ],
    [
      "messages",
      (db, n, atMs) =>
        db.run("INSERT INTO messages VALUES (?, ?, 'visitor', 'x', NULL, ?)", [n + 1, n % 7, atMs]),
      DAY_MS,
    ],
  ];

  test.each(KINDS)("%s", (table, add, ttlMs) => {
    using db = openDatabase(":memory:");
    db.transaction(() => {
      for (let n = 0; n < ROWS; n++) add(db, n, NOW_MS - ttlMs - 1);
      for (let n = ROWS; n < ROWS + 10; n++) add(db, n, NOW_MS - ttlMs);
    })();
    expect(sweepAll(db, table, DAY_MS)).toEqual([SLICE, SLICE, 200]);
    expect(countOf(db, table)).toBe(10);
    expect(sweepAll(db, table, DAY_MS)).toEqual([0]);
  });
});

describe("old messages", () => {
  function openWith(ages: readonly ("old" | "recent")[]): Database {
    const db = openDatabase(":memory:");
    db.run("INSERT INTO chats (key, user, visitor, messages) VALUES (1, 'alice', 'v', ?)", [
      ages.length,
    ]);
    for (const age of ages) {
      const atMs = age === "old" ? NOW_MS - 2 * DAY_MS : NOW_MS;
      db.run("INSERT INTO messages VALUES (NULL, 1, 'visitor', ?, NULL, ?)", [age, atMs]);
    }
    return db;
  }
  const left = (db: Database) => ({
    counted: db.query<{ messages: number }, []>("SELECT messages FROM chats").get()?.messages,
    messages: db
      .query<{ content: string }, []>("SELECT content FROM messages ORDER BY id")
      .all()
      .map(({ content }) => content),
  });

  test("up to the first recent one are deleted, and the chat knows how many are left", () => {
    using db = openWith(["old", "old", "recent", "recent"]);
    sweepAll(db, "messages", DAY_MS);
    expect(left(db)).toEqual({ counted: 2, messages: ["recent", "recent"] });
  });

  test("behind a recent one, after a jump of the clock, stay with it", () => {
    using db = openWith(["old", "recent", "old", "recent"]);
    sweepAll(db, "messages", DAY_MS);
    expect(left(db)).toEqual({ counted: 3, messages: ["recent", "old", "recent"] });
  });

  test("take their chat with them when none is left", () => {
    using db = openWith(["old", "old"]);
    sweepAll(db, "messages", DAY_MS);
    expect(left(db)).toEqual({ counted: undefined, messages: [] });
  });

  test("stay without a limit of age", () => {
    using db = openWith(["old", "old"]);
    sweepAll(db, "messages");
    expect(left(db)).toEqual({ counted: 2, messages: ["old", "old"] });
  });
});

test("the oldest of one chat are deleted, and no other chat's", () => {
  using db = openDatabase(":memory:");
  for (let n = 0; n < 20; n++) {
    db.run("INSERT INTO messages VALUES (NULL, ?, 'visitor', ?, NULL, 1)", [n % 2, `${n}`]);
  }
  const sweeper = createSweeper(db, { maxAgeMs: 0 });
  expect([sweeper.deleteOldest(0, 3), sweeper.deleteOldest(1, 100)]).toEqual([3, 10]);
  const rows = db.query<{ content: string }, []>("SELECT content FROM messages").all();
  expect(rows.map(({ content }) => content)).toEqual(["6", "8", "10", "12", "14", "16", "18"]);
});
