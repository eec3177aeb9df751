import type { Database } from "bun:sqlite";
import { REF_TTL_MS, UNANSWERED_TTL_MS } from "./history.ts";

/** Rows deleted in one transaction: a few milliseconds, so that other work isn't held up. */
export const SLICE = 500;

/** Deletes what is too old, slice by slice. */
export interface Sweeper {
  /**
   * Deletes at most one slice, within a transaction of the caller's; `true` when there is nothing left to
   * delete.
   */
  sweepSlice(nowMs: number): boolean;
  /** Deletes at most one slice of a chat's oldest messages, and returns how many. */
  deleteOldest(chat: number, count: number): number;
}

/** `maxAgeMs`: of messages; 0 for no limit. */
export function createSweeper(db: Database, { maxAgeMs }: { maxAgeMs: number }): Sweeper {
  const oldRefs = db.query<unknown, [number]>(
    `DELETE FROM refs WHERE (sender, recipient, ref) IN
       (SELECT sender, recipient, ref FROM refs WHERE at_ms < ? LIMIT ${SLICE})`,
  );
  const oldUnanswered = db.query<unknown, [number]>(
    `DELETE FROM unanswered WHERE (visitor, user) IN
       (SELECT visitor, user FROM unanswered WHERE at_ms < ? LIMIT ${SLICE})`,
  );
  // Ids rise with time, so that the first recent message ends the old ones, and no index by age is needed.
  const oldest = db.query<{ id: number; chat: number; at_ms: number }, []>(
    `SELECT id, chat, at_ms FROM messages ORDER BY id LIMIT ${SLICE}`,
  );
  const deleteUpTo = db.query<unknown, [number]>("DELETE FROM messages WHERE id <= ?");
  const shrink = db.query<unknown, [number, number]>(
    "UPDATE chats SET messages = messages - ? WHERE key = ?",
  );
  const deleteEmpty = db.query<unknown, [number]>(
    "DELETE FROM chats WHERE key = ? AND messages <= 0",
  );
  const deleteOldestOf = db.query<unknown, [number, number]>(
    "DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE chat = ? ORDER BY id LIMIT ?)",
  );

  function sweepMessages(nowMs: number): boolean {
    if (maxAgeMs === 0) return true;
    const found = oldest.all();
    const firstRecent = found.findIndex(({ at_ms }) => at_ms >= nowMs - maxAgeMs);
    const old = firstRecent < 0 ? found : found.slice(0, firstRecent);
    const last = old.at(-1);
    if (!last) return true;
    deleteUpTo.run(last.id);
    for (const [chat, messages] of Map.groupBy(old, (message) => message.chat)) {
      shrink.run(messages.length, chat);
      deleteEmpty.run(chat);
    }
    return old.length < SLICE;
  }

  return {
    sweepSlice(nowMs) {
      const refs = oldRefs.run(nowMs - REF_TTL_MS).changes;
      const unanswered = oldUnanswered.run(nowMs - UNANSWERED_TTL_MS).changes;
      const hasNoOldMessages = sweepMessages(nowMs);
      return refs < SLICE && unanswered < SLICE && hasNoOldMessages;
    },
    deleteOldest: (chat, count) => deleteOldestOf.run(chat, Math.min(count, SLICE)).changes,
  };
}
