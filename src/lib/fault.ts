/** What is wrong with a database, a key server or a disk: one word for the many of those who report it. */
export type DependencyFault =
  | "wrong_password"
  | "not_permitted"
  | "connection_refused"
  | "unknown_host"
  | "bad_certificate"
  | "out_of_memory"
  | "read_only"
  | "disk_full"
  | "disk_failed"
  | "in_use";

/** By the codes of Redis, Node, Bun and SQLite. */
const FAULTS: Readonly<Record<string, DependencyFault>> = {
  WRONGPASS: "wrong_password",
  NOAUTH: "wrong_password",
  ERR_REDIS_AUTHENTICATION_FAILED: "wrong_password",
  status_401: "wrong_password",
  NOPERM: "not_permitted",
  EACCES: "not_permitted",
  EPERM: "not_permitted",
  SQLITE_PERM: "not_permitted",
  ECONNREFUSED: "connection_refused",
  ConnectionRefused: "connection_refused",
  ENOTFOUND: "unknown_host",
  EAI_AGAIN: "unknown_host",
  OOM: "out_of_memory",
  READONLY: "read_only",
  EROFS: "read_only",
  SQLITE_READONLY: "read_only",
  SQLITE_FULL: "disk_full",
  ENOSPC: "disk_full",
  SQLITE_BUSY: "in_use",
};

/** OpenSSL has some thirty codes for a certificate that can't be trusted, and Node has one more. */
const CERTIFICATE = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|HOSTNAME_MISMATCH/;

/** The word for a code; `undefined` for one that says something else. */
export function dependencyFault(code: string): DependencyFault | undefined {
  if (Object.hasOwn(FAULTS, code)) return FAULTS[code];
  if (code.startsWith("SQLITE_IOERR")) return "disk_failed";
  return CERTIFICATE.test(code) ? "bad_certificate" : undefined;
}
