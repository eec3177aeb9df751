import { type Clock, systemClock } from "../lib/clock.ts";
import { createBatcher } from "../lib/batch.ts";
import { createFileCheck, openDatabase, writeVersion } from "./database.ts";
import {
  type Appended,
  type Chat,
  type ChatEvent,
  type ChatHistory,
  DEFAULT_RETENTION,
  type Draft,
  MAX_UNANSWERED,
  REF_TTL_MS,
  type Retention,
  toMessage,
  UNANSWERED_TTL_MS,
} from "./history.ts";
import { type ChatSummary, otherSide, type Side } from "../wire/frames.ts";

/** Chats whose rows are cached. */
const MAX_KNOWN_CHATS = 10_000;
/** How often old messages are deleted, in milliseconds. */
const SWEEP_INTERVAL_MS = 600_000;

interface ChatRow {
  key: number;
  user: string;
  visitor: string;
  nickname: string | null;
  messages: number;
  last_id: number;
  user_read: number;
  visitor_read: number;
  user_unread: number;
  visitor_unread: number;
  answered: number;
  blocked: number;
}

interface MessageRow {
  id: number;
  side: Side;
  content: string;
  nickname: string | null;
  at_ms: number;
}

/**
 * Chats in an SQLite file, or in `:memory:`, for one process. What arrives in one turn of the event loop is
 * one transaction, on disk before anything is delivered. Throws when the file can't be used.
 *
 * @example
 * const history = sqliteChatHistory({ path: "chat.sqlite", retention: { maxAgeMs: 30 * 86_400_000 } });
 */
export function sqliteChatHistory(options: {
  path: string;
  /** Default: the machine's. */
  clock?: Clock | undefined;
  retention?: Partial<Retention> | undefined;
}): ChatHistory {
  const { path, clock = systemClock } = options;
  const { maxMessages, maxAgeMs } = { ...DEFAULT_RETENTION, ...options.retention };
  const db = openDatabase(path);
  const requireFile = createFileCheck(path);
  let deliver: (event: ChatEvent) => void = () => {};

  const findRef = db.query<{ id: number; at_ms: number }, [string, string, string]>(
    "SELECT id, at_ms FROM refs WHERE sender = ? AND recipient = ? AND ref = ?",
  );
  const addRef = db.query("INSERT OR IGNORE INTO refs VALUES (?, ?, ?, ?, ?)");
  const findChat = db.query<ChatRow, [string, string]>(
    `SELECT chats.*, blocks.user IS NOT NULL AS blocked FROM chats
     LEFT JOIN blocks USING (user, visitor) WHERE user = ? AND visitor = ?`,
  );
  const addChat = db.query("INSERT INTO chats (user, visitor) VALUES (?, ?)");
  const isBlocked = db.query("SELECT 1 FROM blocks WHERE user = ? AND visitor = ?");
  const countUnanswered = db.query<{ count: number }, [string, string, number]>(
    "SELECT count(*) AS count FROM unanswered WHERE visitor = ? AND user <> ? AND at_ms > ?",
  );
  const addUnanswered = db.query("INSERT OR REPLACE INTO unanswered VALUES (?, ?, ?)");
  const removeUnanswered = db.query("DELETE FROM unanswered WHERE visitor = ? AND user = ?");
  const addMessage = db.query("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)");
  const updateChat = db.query(
    `UPDATE chats SET nickname = $nickname, messages = $messages, last_id = $last_id,
       user_read = $user_read, visitor_read = $visitor_read,
       user_unread = $user_unread, visitor_unread = $visitor_unread, answered = $answered
     WHERE key = $key`,
  );
  const dropOldest = db.query(
    "DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE chat = ? ORDER BY id LIMIT ?)",
  );

  const newest = db.query<{ seq: number }, []>(
    "SELECT seq FROM sqlite_sequence WHERE name = 'messages'",
  );
  let lastId = 0;
  /** Changes when another connection has written. */
  const dataVersion = db.query<{ data_version: number }, []>("PRAGMA data_version");
  let seenVersion: number | undefined;
  /** Rows as this process last saw them. */
  const known = new Map<string, ChatRow>();
  /** Rows that the current transaction has changed, to be written once at its end. */
  const changed = new Set<ChatRow>();
  /** What it will deliver once it is committed. */
  let events: ChatEvent[] = [];

  const writes = createBatcher(commit, {
    afterwards() {
      for (const event of events) deliver(event);
      events = [];
    },
  });

  function commit(works: readonly (() => unknown)[]): unknown[] {
    // An earlier batch may not have delivered its own yet.
    const earlier = events.length;
    try {
      requireFile();
      let results: unknown[] = [];
      db.transaction(() => {
        forgetWhatOthersChanged();
        results = works.map((work) => work());
        writeChanged();
      }).immediate();
      return results;
    } catch (error) {
      events.length = earlier;
      known.clear();
      changed.clear();
      seenVersion = undefined;
      throw error;
    }
  }

  /** During a restart that overlaps, another process may write, too. */
  function forgetWhatOthersChanged(): void {
    const version = dataVersion.get()?.data_version;
    if (version === seenVersion) return;
    seenVersion = version;
    known.clear();
    lastId = newest.get()?.seq ?? 0;
  }

  function write<Result>(work: () => Result): Promise<Result> {
    return writes.add(work) as Promise<Result>;
  }

  function writeChanged(): void {
    for (const { user: _, visitor: __, blocked: ___, ...row } of changed) updateChat.run(row);
    changed.clear();
  }

  function chatRow({ user, visitor }: Chat): ChatRow | undefined {
    const name = `${visitor}:${user}`;
    let row = known.get(name);
    if (row) return row;
    row = findChat.get(user, visitor) ?? undefined;
    if (!row) return undefined;
    if (known.size >= MAX_KNOWN_CHATS) {
      writeChanged();
      known.clear();
    }
    known.set(name, row);
    return row;
  }

  function append({ chat, from, content, nickname, ref, atMs }: Draft): Appended {
    const byVisitor = from === "visitor";
    const sender = `${from}:${byVisitor ? chat.visitor : chat.user}`;
    const recipient = byVisitor ? chat.user : chat.visitor;
    const earlier = (): Appended | undefined => {
      const found = ref === undefined ? null : findRef.get(sender, recipient, ref);
      return found ? { ok: true, id: String(found.id), atMs: found.at_ms } : undefined;
    };
    let row = chatRow(chat);
    const error = byVisitor ? refusal(chat, row, atMs) : row ? undefined : "not_found";
    if (error) return earlier() ?? { ok: false, error };
    const id = lastId + 1;
    if (ref !== undefined && addRef.run(sender, recipient, ref, id, atMs).changes === 0) {
      return earlier() as Appended;
    }
    if (!row) {
      addChat.run(chat.user, chat.visitor);
      addUnanswered.run(chat.visitor, chat.user, atMs);
      row = chatRow(chat) as ChatRow;
    }
    lastId = id;
    addMessage.run(id, row.key, from, content, nickname ?? null, atMs);
    row.last_id = id;
    row.messages++;
    row[`${otherSide(from)}_unread`]++;
    if (byVisitor && nickname !== undefined) row.nickname = nickname;
    if (!byVisitor && !row.answered) {
      row.answered = 1;
      removeUnanswered.run(chat.visitor, chat.user);
    }
    if (maxMessages > 0 && row.messages > maxMessages) {
      dropOldest.run(row.key, row.messages - maxMessages);
      row.messages = maxMessages;
    }
    changed.add(row);
    const message = toMessage(chat, { id: String(id), from, content, nickname, atMs });
    events.push({ kind: "message", chat, message });
    return { ok: true, id: String(id), atMs };
  }

  /** Why a visitor may not write. */
  function refusal(
    { user, visitor }: Chat,
    row: ChatRow | undefined,
    atMs: number,
  ): "blocked" | "too_many_recipients" | undefined {
    if (row) return row.blocked ? "blocked" : undefined;
    if (isBlocked.get(user, visitor)) return "blocked";
    const unanswered = countUnanswered.get(visitor, user, atMs - UNANSWERED_TTL_MS)?.count ?? 0;
    return unanswered >= MAX_UNANSWERED ? "too_many_recipients" : undefined;
  }

  /** Deletes what is too old, and chats that are empty then. */
  function sweep(): void {
    writeChanged();
    known.clear();
    const nowMs = clock.nowMs();
    db.query("DELETE FROM refs WHERE at_ms < ?").run(nowMs - REF_TTL_MS);
    db.query("DELETE FROM unanswered WHERE at_ms < ?").run(nowMs - UNANSWERED_TTL_MS);
    if (maxAgeMs === 0) return;
    // Ids rise with time, so that the first young message ends the old ones, and no index by age is needed.
    const young = db
      .query<{ id: number }, [number]>(
        "SELECT id FROM messages WHERE at_ms >= ? ORDER BY id LIMIT 1",
      )
      .get(nowMs - maxAgeMs);
    const end = young?.id ?? Number.MAX_SAFE_INTEGER;
    db.query(
      `UPDATE chats SET messages = messages - gone.count
       FROM (SELECT chat, count(*) AS count FROM messages WHERE id < ? GROUP BY chat) AS gone
       WHERE gone.chat = chats.key`,
    ).run(end);
    db.query("DELETE FROM messages WHERE id < ?").run(end);
    db.query("DELETE FROM chats WHERE messages = 0").run();
  }

  function oldestMs(): number {
    return maxAgeMs === 0 ? 0 : clock.nowMs() - maxAgeMs;
  }

  function toStored({ id, side, content, nickname, at_ms }: MessageRow) {
    return { id: String(id), from: side, content, nickname, atMs: at_ms };
  }

  let sweeping: Promise<void> | undefined;
  const stopSweep = clock.every(SWEEP_INTERVAL_MS, () => {
    sweeping ??= write(sweep)
      .catch(() => {})
      .finally(() => {
        sweeping = undefined;
      });
  });

  return {
    start(to) {
      deliver = to;
    },
    append: (draft) => write(() => append(draft)),
    markRead: (chat, by) =>
      write(() => {
        const row = chatRow(chat);
        if (!row) return undefined;
        const upTo = String(row.last_id);
        if (row[`${by}_read`] === row.last_id) return upTo;
        row[`${by}_read`] = row.last_id;
        row[`${by}_unread`] = 0;
        changed.add(row);
        events.push({ kind: "read", chat, by, upTo });
        return upTo;
      }),
    async chats({ side, id }, { beforeId, limit }) {
      const before = beforeId === undefined ? Number.MAX_SAFE_INTEGER : Number(beforeId);
      const rows = db
        .query<ChatRow & Omit<MessageRow, "nickname">, [string, number, number, number]>(
          `SELECT chats.*, last.id, last.side, last.content, last.at_ms, blocks.user IS NOT NULL AS blocked
           FROM chats
           JOIN messages AS last ON last.id = chats.last_id
           LEFT JOIN blocks ON blocks.user = chats.user AND blocks.visitor = chats.visitor
           WHERE chats.${side} = ? AND chats.last_id < ? AND last.at_ms >= ?
           ORDER BY chats.last_id DESC LIMIT ?`,
        )
        .all(id, before, oldestMs(), limit);
      return rows.map((row): ChatSummary => {
        const { user, visitor, nickname, blocked } = row;
        const { nickname: _, ...lastMessage } = toMessage({ user, visitor }, toStored(row));
        return {
          peer: row[otherSide(side)],
          unread: Math.min(row[`${side}_unread`], row.messages),
          ...(nickname !== null && { nickname }),
          ...(side === "user" && { blocked: blocked === 1 }),
          lastMessage,
        };
      });
    },
    async messages(chat, { afterId = "0", beforeId, limit }) {
      const row = findChat.get(chat.user, chat.visitor);
      if (!row) return undefined;
      const backwards = beforeId !== undefined;
      const rows = db
        .query<MessageRow, [number, number, number, number]>(
          `SELECT id, side, content, nickname, at_ms FROM messages
           WHERE chat = ? AND id ${backwards ? "<" : ">"} ? AND at_ms >= ?
           ORDER BY id ${backwards ? "DESC" : "ASC"} LIMIT ?`,
        )
        .all(row.key, Number(beforeId ?? afterId), oldestMs(), limit);
      if (backwards) rows.reverse();
      return {
        messages: rows.map((message) => toMessage(chat, toStored(message))),
        readUpTo: { user: String(row.user_read), visitor: String(row.visitor_read) },
      };
    },
    remove: (chat) =>
      write(() => {
        const row = chatRow(chat);
        if (!row) return false;
        changed.delete(row);
        known.delete(`${chat.visitor}:${chat.user}`);
        db.query("DELETE FROM messages WHERE chat = ?").run(row.key);
        db.query("DELETE FROM chats WHERE key = ?").run(row.key);
        return true;
      }),
    setBlocked: (chat, blocked) =>
      write(() => {
        const change = blocked
          ? "INSERT OR IGNORE INTO blocks VALUES (?, ?)"
          : "DELETE FROM blocks WHERE user = ? AND visitor = ?";
        db.query(change).run(chat.user, chat.visitor);
        const row = chatRow(chat);
        if (row) row.blocked = blocked ? 1 : 0;
      }),
    probe: () => write(() => writeVersion(db)),
    async close() {
      stopSweep();
      await writes.idle();
      db.close();
    },
  };
}
