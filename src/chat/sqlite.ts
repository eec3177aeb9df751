import { createBatcher } from "../lib/batch.ts";
import { type Clock, pause, systemClock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { createRateLimit } from "../lib/limit.ts";
import { type ChatSummary, type Message, otherSide, type Side } from "../wire/frames.ts";
import { createFileCheck, openDatabase, writeVersion } from "./database.ts";
import {
  type AppendError,
  type Appended,
  type Chat,
  type ChatEvent,
  type ChatHistory,
  DEFAULT_RETENTION,
  type Draft,
  FAILING_MS,
  MAX_BLOCKS,
  MAX_PAGE_LENGTH,
  MAX_PREVIEW_LENGTH,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  previewOf,
  type Retention,
  toMessage,
  UNANSWERED_TTL_MS,
} from "./history.ts";
import { REQUESTS_PER_MINUTE } from "./limits.ts";
import { createSweeper, SLICE } from "./retention.ts";

/** Pauses between attempts while another process holds the file, in milliseconds. */
const BUSY_RETRY_MS = 25;
/** Chats whose rows are cached. */
const MAX_KNOWN_CHATS = 10_000;
/** How often old messages are deleted, in milliseconds. */
const SWEEP_INTERVAL_MS = 600_000;

/** One thing to do within a transaction. */
interface Work {
  readonly run: () => unknown;
  /** Whose message it stores. */
  readonly sender: string | undefined;
}

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
  const countRecipients = db.query<{ count: number }, [string, number]>(
    "SELECT count(*) AS count FROM unanswered WHERE visitor = ? AND at_ms > ?",
  );
  const findUnanswered = db.query<{ messages: number }, [string, string, number]>(
    "SELECT messages FROM unanswered WHERE visitor = ? AND user = ? AND at_ms > ?",
  );
  const addUnanswered = db.query("INSERT OR REPLACE INTO unanswered VALUES (?, ?, ?, 1)");
  const countUnanswered = db.query(
    "UPDATE unanswered SET messages = messages + 1 WHERE visitor = ? AND user = ?",
  );
  const removeUnanswered = db.query("DELETE FROM unanswered WHERE visitor = ? AND user = ?");
  const addMessage = db.query("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)");
  const updateChat = db.query(
    `UPDATE chats SET nickname = $nickname, messages = $messages, last_id = $last_id,
       user_read = $user_read, visitor_read = $visitor_read,
       user_unread = $user_unread, visitor_unread = $visitor_unread, answered = $answered
     WHERE key = $key`,
  );
  const sweeper = createSweeper(db, { maxAgeMs });
  const countBlocks = db.query<{ count: number }, [string]>(
    "SELECT count(*) AS count FROM blocks WHERE user = ?",
  );
  const findProfile = db.query<{ name: string | null; greeting: string | null }, [string]>(
    "SELECT name, greeting FROM profiles WHERE user = ?",
  );
  const setProfile = db.query("INSERT OR REPLACE INTO profiles VALUES (?, ?, ?)");
  const requests = createRateLimit<string>({
    allowed: REQUESTS_PER_MINUTE,
    windowMs: 60_000,
    clock,
  });

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

  const writes = createBatcher<Work, unknown>(commit, {
    clock,
    deadlineMs: DEPENDENCY_DEADLINE_MS,
    senderOf: ({ sender }) => sender,
    failingMs: FAILING_MS,
    afterwards() {
      for (const event of events) deliver(event);
      events = [];
    },
  });

  /** Commits at once, and later where another process holds the file: waiting inside SQLite would block the server. */
  function commit(works: readonly Work[]): unknown[] | Promise<unknown[]> {
    try {
      return commitNow(works);
    } catch (error) {
      if (!isBusy(error)) throw error;
      return commitLater(works);
    }
  }

  async function commitLater(works: readonly Work[]): Promise<unknown[]> {
    const endMs = clock.monotonicMs() + DEPENDENCY_DEADLINE_MS;
    for (;;) {
      await pause(BUSY_RETRY_MS, clock);
      try {
        return commitNow(works);
      } catch (error) {
        if (!isBusy(error) || clock.monotonicMs() >= endMs) throw error;
      }
    }
  }

  function commitNow(works: readonly Work[]): unknown[] {
    // An earlier batch may not have delivered its own yet.
    const earlier = events.length;
    try {
      requireFile();
      let results: unknown[] = [];
      db.transaction(() => {
        forgetWhatOthersChanged();
        results = works.map(({ run }) => run());
        writeChanged();
      }).immediate();
      return results;
    } catch (error) {
      events.length = earlier;
      changed.clear();
      // What the cache says may not be so: it is read again.
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

  function write<Result>(run: () => Result, sender?: string): Promise<Result> {
    return writes.add({ run, sender }) as Promise<Result>;
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

  function append(draft: Draft): Appended {
    const { chat, from, content, nickname, ref, atMs } = draft;
    const byVisitor = from === "visitor";
    const sender = senderOf(draft);
    const recipient = byVisitor ? chat.user : chat.visitor;
    const earlier = (): Appended | undefined => {
      const found = ref === undefined ? null : findRef.get(sender, recipient, ref);
      if (!found) return undefined;
      return { ok: true, id: String(found.id), atMs: found.at_ms, isUnanswered: false };
    };
    let row = chatRow(chat);
    const isUnanswered = byVisitor && !row?.answered;
    const written = isUnanswered ? writtenTo(draft) : 0;
    const error = byVisitor ? refusal(draft, row, written) : row ? undefined : "not_found";
    if (error) return earlier() ?? { ok: false, error };
    const id = lastId + 1;
    if (ref !== undefined && addRef.run(sender, recipient, ref, id, atMs).changes === 0) {
      return earlier() as Appended;
    }
    if (!row) {
      addChat.run(chat.user, chat.visitor);
      row = chatRow(chat) as ChatRow;
    }
    if (isUnanswered && written > 0) countUnanswered.run(chat.visitor, chat.user);
    else if (isUnanswered) addUnanswered.run(chat.visitor, chat.user, atMs);
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
      row.messages -= sweeper.deleteOldest(row.key, row.messages - maxMessages);
    }
    changed.add(row);
    const message = toMessage(chat, { id: String(id), from, content, nickname, atMs });
    events.push({ kind: "message", chat, frame: JSON.stringify(message) });
    return { ok: true, id: String(id), atMs, isUnanswered };
  }

  /** How much a visitor has written to a user who hasn't answered, in messages. */
  function writtenTo({ chat: { user, visitor }, atMs }: Draft): number {
    return findUnanswered.get(visitor, user, atMs - UNANSWERED_TTL_MS)?.messages ?? 0;
  }

  /** Why a visitor may not write. */
  function refusal(
    { chat: { user, visitor }, atMs, onlyAnswered }: Draft,
    row: ChatRow | undefined,
    written: number,
  ): AppendError | undefined {
    if (row ? row.blocked : isBlocked.get(user, visitor)) return "blocked";
    if (row?.answered) return undefined;
    if (onlyAnswered || written >= MAX_UNANSWERED_MESSAGES) return "too_many_messages";
    if (row || written > 0) return undefined;
    const recipients = countRecipients.get(visitor, atMs - UNANSWERED_TTL_MS)?.count ?? 0;
    return recipients >= MAX_UNANSWERED ? "too_many_recipients" : undefined;
  }

  /** Deletes what is too old, a slice at a time, so that nobody waits for it. */
  async function sweep(): Promise<void> {
    const slice = () => {
      writeChanged();
      known.clear();
      return sweeper.sweepSlice(clock.nowMs());
    };
    while (!isClosing && !(await write(slice))) await checkpoint();
  }

  /** Moves a slice's pages to the file in a turn of their own: those of several within a commit would hold it up. */
  async function checkpoint(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    try {
      db.run("PRAGMA wal_checkpoint(PASSIVE)");
    } catch {
      // Closed meanwhile; otherwise they stay in the log, and the next commit says what is wrong.
    }
  }

  function oldestMs(): number {
    return maxAgeMs === 0 ? 0 : clock.nowMs() - maxAgeMs;
  }

  function toStored({ id, side, content, nickname, at_ms }: MessageRow) {
    return { id: String(id), from: side, content, nickname, atMs: at_ms };
  }

  let isClosing = false;
  let sweeping: Promise<void> | undefined;
  const stopSweep = clock.every(SWEEP_INTERVAL_MS, () => {
    sweeping ??= sweep()
      .catch(() => {})
      .finally(() => {
        sweeping = undefined;
      });
  });

  return {
    start(to) {
      deliver = to;
    },
    append: (draft) => write(() => append(draft), senderOf(draft)),
    async isOpen({ user, visitor }) {
      return findChat.get(user, visitor)?.blocked === 0;
    },
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
          `SELECT chats.*, last.id, last.side, last.at_ms,
             substr(last.content, 1, ${MAX_PREVIEW_LENGTH + 1}) AS content, blocks.user IS NOT NULL AS blocked
           FROM chats
           JOIN messages AS last ON last.id = chats.last_id
           LEFT JOIN blocks ON blocks.user = chats.user AND blocks.visitor = chats.visitor
           WHERE chats.${side} = ? AND chats.last_id < ? AND last.at_ms >= ?
           ORDER BY chats.last_id DESC LIMIT ?`,
        )
        .all(id, before, oldestMs(), limit);
      return rows.map((row): ChatSummary => {
        const { user, visitor, nickname, blocked } = row;
        return {
          peer: row[otherSide(side)],
          unread: Math.min(row[`${side}_unread`], row.messages),
          ...(nickname !== null && { nickname }),
          ...(side === "user" && { blocked: blocked === 1 }),
          lastMessage: previewOf(toMessage({ user, visitor }, toStored(row))),
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
        .iterate(row.key, Number(beforeId ?? afterId), oldestMs(), limit);
      const messages: Message[] = [];
      let length = 0;
      for (const message of rows) {
        length += message.content.length;
        if (messages.length > 0 && length > MAX_PAGE_LENGTH) break;
        messages.push(toMessage(chat, toStored(message)));
      }
      if (backwards) messages.reverse();
      return {
        messages,
        readUpTo: { user: String(row.user_read), visitor: String(row.visitor_read) },
        more: messages.length === limit || length > MAX_PAGE_LENGTH,
      };
    },
    async remove(chat) {
      // A long chat goes slice by slice, so that nobody waits for it.
      const slice = (): boolean | undefined => {
        const row = chatRow(chat);
        if (!row) return false;
        const deleted = sweeper.deleteOldest(row.key, SLICE);
        row.messages -= deleted;
        changed.add(row);
        if (deleted === SLICE) return undefined;
        changed.delete(row);
        known.delete(`${chat.visitor}:${chat.user}`);
        db.query("DELETE FROM chats WHERE key = ?").run(row.key);
        events.push({ kind: "deleted", chat, upTo: String(row.last_id) });
        return true;
      };
      for (;;) {
        const removed = await write(slice);
        if (removed !== undefined) return removed;
        await checkpoint();
      }
    },
    setBlocked: (chat, blocked) =>
      write(() => {
        const { user, visitor } = chat;
        const row = chatRow(chat);
        if (blocked === Boolean(isBlocked.get(user, visitor))) return "done";
        if (!blocked) {
          db.query("DELETE FROM blocks WHERE user = ? AND visitor = ?").run(user, visitor);
        } else {
          if (!row) return "not_found";
          if ((countBlocks.get(user)?.count ?? 0) >= MAX_BLOCKS) return "too_many";
          db.query("INSERT INTO blocks VALUES (?, ?)").run(user, visitor);
        }
        if (row) row.blocked = blocked ? 1 : 0;
        events.push({ kind: "blocked", chat, blocked });
        return "done";
      }),
    setProfile: (user, { name = null, greeting = null }) =>
      write(() => {
        const shown = findProfile.get(user);
        if (shown?.name === name && shown.greeting === greeting) return;
        setProfile.run(user, name, greeting);
      }),
    async profile(user) {
      const { name, greeting } = findProfile.get(user) ?? {};
      return { ...(name && { name }), ...(greeting && { greeting }) };
    },
    spendRequests: async (key, count) => requests.take(key, count),
    probe: () => write(() => writeVersion(db)),
    async close() {
      isClosing = true;
      stopSweep();
      await writes.idle();
      db.close();
    },
  };
}

/** Whose messages stay in order. */
function senderOf({ chat, from }: Draft): string {
  return `${from}:${chat[from]}`;
}

function isBusy(error: unknown): boolean {
  return String((error as { code?: unknown } | null)?.code).startsWith("SQLITE_BUSY");
}
