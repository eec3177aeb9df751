import { Database } from "bun:sqlite";
import { type Clock, pause } from "../lib/clock.ts";
import { createPrivate } from "./database.ts";

/** How often the file is tried while another process has it, in milliseconds. */
const RETRY_MS = 100;

/** Another process has the file. */
export class FileInUseError extends Error {
  override name = "FileInUseError";
  readonly code = "in_use";
}

/**
 * Keeps other servers off a chat's file: what they store, this one's sockets would never hear of. Waits until a
 * process that is about to end has let go of it, and calls `onWait` once if it does; rejects with a
 * `FileInUseError` after `withinMs`. Returns what lets go. The lock also ends with the process, however that
 * ends: it is SQLite's own, on a file next to the chat's, which others may still read (a backup).
 */
export async function lockFile(
  path: string,
  options: { withinMs: number; clock: Clock; onWait: () => void },
): Promise<() => void> {
  const { withinMs, clock, onWait } = options;
  const endMs = clock.monotonicMs() + withinMs;
  for (let isFirst = true; ; isFirst = false) {
    const release = tryLock(path);
    if (release) return release;
    if (clock.monotonicMs() >= endMs) throw new FileInUseError("Chat database is in use");
    if (isFirst) onWait();
    await pause(RETRY_MS, clock);
  }
}

/** Takes the lock now, or `undefined` where another process has it. Throws where there can't be one. */
export function tryLock(path: string): (() => void) | undefined {
  const lock = `${path}-lock`;
  createPrivate(lock);
  const db = new Database(lock, { create: true });
  try {
    db.run("PRAGMA busy_timeout = 0");
    db.run("BEGIN EXCLUSIVE");
    return () => db.close();
  } catch (error) {
    db.close();
    if ((error as { code?: string }).code === "SQLITE_BUSY") return undefined;
    throw error;
  }
}
