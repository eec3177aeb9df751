import { Database } from "bun:sqlite";

/** Version of the tables below, kept in the file. */
const SCHEMA_VERSION = 1;
/** Longest wait for another process that holds the file, in milliseconds: the whole server waits with it. */
const BUSY_TIMEOUT_MS = 250;
/** Pages of 4 KB that wait in the write-ahead log before they move to the file. */
const CHECKPOINT_PAGES = 2_000;
/** Memory for the file's pages, in KB. */
const CACHE_KB = 16_384;

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
`;

/** Opens or makes the file. Throws for one that is locked, broken, somebody else's, or of a newer version. */
export function openDatabase(path: string): Database {
  const db = new Database(path, { create: true, strict: true });
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    db.transaction(() => {
      const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get();
      const found = version?.user_version ?? 0;
      if (found > SCHEMA_VERSION) throw new Error("Chat database is of a newer version");
      if (found === 0) {
        if (db.query("SELECT 1 FROM sqlite_schema").get()) {
          throw new Error("Chat database belongs to something else");
        }
        db.run(SCHEMA);
      }
      // Written every time: a file that can't be written to is found now, not at the first message.
      db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    }).immediate();
    // Kept in the file, and so not before it is known whose it is.
    db.run("PRAGMA journal_mode = WAL");
    db.run("PRAGMA synchronous = FULL");
    db.run(`PRAGMA cache_size = -${CACHE_KB}`);
    db.run(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}
