import { Database } from "bun:sqlite";
import { closeSync, openSync, statSync } from "node:fs";

/** Version of the tables below, kept in the file. */
export const SCHEMA_VERSION = 3;
/** Longest wait for another process that holds the file, in milliseconds, while it is opened. */
const BUSY_TIMEOUT_MS = 250;
/** Pages of 4 KB in the write-ahead log at which they move to the file. */
const CHECKPOINT_PAGES = 2_000;
/** What a write-ahead log that has grown is cut down to, in bytes. */
const MAX_JOURNAL_BYTES = 16 * 1024 * 1024;
/** Memory for the file's pages, in KB. */
const CACHE_KB = 16_384;

/** Users to whom a visitor has written and who have never answered: since when, and with how many messages. */
const UNANSWERED = `
  CREATE TABLE unanswered (
    visitor TEXT,
    user TEXT,
    at_ms INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    PRIMARY KEY (visitor, user)
  ) WITHOUT ROWID;
  CREATE INDEX unanswered_by_age ON unanswered (at_ms);
`;

const SCHEMA = `
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
    answered INTEGER NOT NULL DEFAULT 0,
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
  ${UNANSWERED}
`;

/** What is unanswered in chats, as their messages show it. */
const COUNT_UNANSWERED = `
  ${UNANSWERED}
  INSERT INTO unanswered
  SELECT visitor, user, (SELECT max(at_ms) FROM messages WHERE chat = chats.key), messages FROM chats
  WHERE answered = 0 AND messages > 0;
`;

/** Added to any version, since those before can live with it: what users show to visitors. */
const PROFILES = `
  CREATE TABLE IF NOT EXISTS profiles (
    user TEXT PRIMARY KEY,
    name TEXT,
    greeting TEXT
  ) WITHOUT ROWID;
`;

/** From each version to the present one. */
const MIGRATIONS: readonly string[] = [
  SCHEMA,
  // Version 1 counted users who had never signed in.
  `
    ALTER TABLE chats ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;
    UPDATE chats SET answered = 1
    WHERE EXISTS (SELECT 1 FROM messages WHERE chat = chats.key AND side = 'user');
    ${COUNT_UNANSWERED}
    DROP TABLE users;
  `,
  // Version 2 didn't count the messages.
  `
    DROP TABLE unanswered;
    ${COUNT_UNANSWERED}
  `,
];

/** Opens or creates the file. Throws when it is locked, damaged, another program's, or of a newer version. */
export function openDatabase(path: string): Database {
  if (isFile(path)) createPrivate(path);
  const db = new Database(path, { create: true, strict: true });
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    db.transaction(() => {
      const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get();
      const found = version?.user_version ?? 0;
      if (found > SCHEMA_VERSION) throw new Error("Chat database is of a newer version");
      if (found === 0 && db.query("SELECT 1 FROM sqlite_schema").get()) {
        throw new Error("Chat database belongs to something else");
      }
      const migration = MIGRATIONS[found];
      if (migration) db.run(migration);
      db.run(PROFILES);
      // A read-only file is noticed now and not at the first message.
      writeVersion(db);
    }).immediate();
    // This changes the file, so only after its ownership is verified.
    db.run("PRAGMA journal_mode = WAL");
    db.run("PRAGMA synchronous = FULL");
    db.run(`PRAGMA cache_size = -${CACHE_KB}`);
    db.run(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
    db.run(`PRAGMA journal_size_limit = ${MAX_JOURNAL_BYTES}`);
    // From here on, a busy file is tried again without blocking.
    db.run("PRAGMA busy_timeout = 0");
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Writes what is there already: a write that changes nothing. */
export function writeVersion(db: Database): void {
  db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
}

/** Whether a path is one, and not SQLite's name for something in memory. */
export function isFile(path: string): boolean {
  return path !== "" && !path.startsWith(":") && !path.startsWith("file:");
}

/** Creates an empty file that only its owner may read, where there is none. SQLite gives its siblings the same mode. */
export function createPrivate(path: string): void {
  try {
    closeSync(openSync(path, "ax", 0o600));
  } catch {
    // It exists, or SQLite will say why it can't.
  }
}

/** The file is no longer at its path. */
class FileGoneError extends Error {
  override name = "FileGoneError";
  readonly code = "file_gone";
}

/** Makes a check that throws once the file at `path` isn't the one there is now: what is written then is lost. */
export function createFileCheck(path: string): () => void {
  const inode = () => statSync(path, { throwIfNoEntry: false })?.ino;
  if (!isFile(path)) return () => {};
  const opened = inode();
  return () => {
    if (inode() !== opened) throw new FileGoneError("Chat database was deleted or replaced");
  };
}
