import {
  accessSync,
  constants,
  existsSync,
  readSync,
  openSync,
  closeSync,
  statfsSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { isFile, SCHEMA_VERSION } from "../chat/database.ts";
import { tryLock } from "../chat/lock.ts";
import { faultCode } from "../lib/log.ts";
import { fault, good, type Report, warning } from "./report.ts";

const SUBJECT = "CHAT_DATABASE";
/** Space left on the disk under which it is a warning, in MB. */
const LITTLE_SPACE_MB = 256;
/** First bytes of every SQLite file, and where its user version is. */
const MAGIC = "SQLite format 3\0";
const VERSION_OFFSET = 60;
const HEADER_LENGTH = 100;

/** Looks at the chat's file, and writes nothing. `isOwn`: by the server that has it. */
export function inspectFile(path: string, { isOwn }: { isOwn: boolean }): Report[] {
  if (!isFile(path)) {
    return [warning(SUBJECT, "in memory", "Chats end with the process: set a path")];
  }
  try {
    const exists = existsSync(path);
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
    if (exists) accessSync(path, constants.R_OK | constants.W_OK);
    return [
      ...(exists ? inspectContent(path, isOwn) : [good(SUBJECT, "will be created")]),
      ...inspectSpace(dirname(path)),
    ];
  } catch (error) {
    const code = faultCode(error);
    const note = "The file and its folder must exist and be writable for the server's user";
    return [fault(SUBJECT, `can't be written: ${code}`, note)];
  }
}

function inspectContent(path: string, isOwn: boolean): Report[] {
  const header = readHeader(path);
  if (header.length > 0 && header.toString("latin1", 0, MAGIC.length) !== MAGIC) {
    return [fault(SUBJECT, "no SQLite database", "Something else is at that path")];
  }
  const version = header.length < HEADER_LENGTH ? 0 : header.readUInt32BE(VERSION_OFFSET);
  if (version > SCHEMA_VERSION) {
    return [fault(SUBJECT, `of version ${version}`, "A newer ws-ticket has written it")];
  }
  const { mode, size } = statSync(path);
  const reports = [good(SUBJECT, `writable, ${megabytes(size)} MB`)];
  if ((mode & 0o077) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, "0");
    reports.push(
      warning(
        SUBJECT,
        `has mode ${octal}`,
        "Other users of this machine can read chats: chmod 600",
      ),
    );
  }
  if (!isOwn && isInUse(path)) {
    reports.push(
      warning(
        SUBJECT,
        "in use",
        "A server has it now; another one will wait for it, and then refuse to start",
      ),
    );
  }
  return reports;
}

function readHeader(path: string): Buffer {
  const header = Buffer.alloc(HEADER_LENGTH);
  const file = openSync(path, "r");
  try {
    return header.subarray(0, readSync(file, header));
  } finally {
    closeSync(file);
  }
}

function isInUse(path: string): boolean {
  // Without a lock file no server has ever had it, and none is made here.
  if (!existsSync(`${path}-lock`)) return false;
  const release = tryLock(path);
  release?.();
  return release === undefined;
}

function inspectSpace(folder: string): Report[] {
  const { bavail, bsize } = statfsSync(folder);
  const left = bavail * bsize;
  const found = `${megabytes(left)} MB left on its disk`;
  if (left >= LITTLE_SPACE_MB * 1_000_000) return [good(SUBJECT, found)];
  return [warning(SUBJECT, found, "Messages are refused once the disk is full")];
}

function megabytes(bytes: number): string {
  return Math.round(bytes / 1_000_000).toLocaleString("en");
}
