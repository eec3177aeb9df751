import type { Clock } from "../lib/clock.ts";
import { CLOSE, type Close } from "../wire/close.ts";
import { type Identity, identityKey } from "./identity.ts";
import { covers, type Revocation } from "./store.ts";

/** How often credentials are checked for their end, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000;
/** How long a revocation is remembered for connections that were let in before it and open after it, in milliseconds. */
const REVOCATION_MEMORY_MS = 60_000;

/** A connection that ends with its credential. */
export interface Connection {
  readonly identity: Identity;
  /** Of the identity. */
  readonly key: string;
  /** The credential is revoked or has expired. */
  end(close: Close): void;
}

/** The open connections of a gate, by identity: ended on expiry and revocation. */
export interface Live {
  readonly size: number;
  /** From now on; ends it at once if its credential was revoked a moment ago. */
  add(connection: Connection): void;
  remove(connection: Connection): void;
  /** Calls `run` with each of them. */
  forEach(run: (connection: Connection) => void): void;
  /** All connections of one identity. */
  of(identity: Pick<Identity, "kind" | "id">): readonly Connection[];
  revoke(revocation: Revocation): void;
  /** Revocations may have been missed. */
  endAll(close: Close): void;
  close(): void;
}

/** Most identities have one connection: a set of their own would cost as much memory as the connection. */
type Own = Connection | Set<Connection>;

export function createLive({ clock }: { clock: Clock }): Live {
  const byIdentity = new Map<string, Own>();
  /** By identity. */
  const recent = new Map<string, { revocation: Revocation; seenAtMs: number }[]>();
  let size = 0;
  let stopChecks: (() => void) | undefined;

  function check(): void {
    const wallMs = clock.nowMs();
    const startMs = clock.monotonicMs() - REVOCATION_MEMORY_MS;
    for (const [key, revocations] of recent) {
      const left = revocations.filter(({ seenAtMs }) => seenAtMs > startMs);
      if (left.length === 0) recent.delete(key);
      else recent.set(key, left);
    }
    forEach((connection) => {
      if (connection.identity.expiresAtMs <= wallMs) connection.end(CLOSE.credentialExpired);
    });
    if (size > 0 || recent.size > 0) return;
    stopChecks?.();
    stopChecks = undefined;
  }

  function startChecks(): void {
    stopChecks ??= clock.every(CHECK_INTERVAL_MS, check);
  }

  function forEach(run: (connection: Connection) => void): void {
    for (const own of byIdentity.values()) for (const connection of listOf(own)) run(connection);
  }

  return {
    get size() {
      return size;
    },
    add(connection) {
      const { key } = connection;
      const own = byIdentity.get(key);
      if (own instanceof Set) own.add(connection);
      else byIdentity.set(key, own ? new Set([own, connection]) : connection);
      size++;
      startChecks();
      const revocations = recent.get(key) ?? [];
      if (revocations.some(({ revocation }) => covers(revocation, connection.identity))) {
        connection.end(CLOSE.signedOut);
      }
    },
    remove(connection) {
      const { key } = connection;
      const own = byIdentity.get(key);
      const isThere = own instanceof Set ? own.delete(connection) : own === connection;
      if (!isThere) return;
      size--;
      if (!(own instanceof Set) || own.size === 0) byIdentity.delete(key);
    },
    forEach,
    of: (identity) => listOf(byIdentity.get(identityKey(identity))),
    revoke(revocation) {
      const key = identityKey(revocation);
      const known = recent.get(key) ?? [];
      const same = known.find((one) => one.revocation.session === revocation.session)?.revocation;
      // As in the stores, a later one with an earlier time takes nothing back.
      const atMs = Math.max(revocation.atMs, same?.atMs ?? 0);
      recent.set(key, [
        ...known.filter((one) => one.revocation !== same),
        { revocation: { ...revocation, atMs }, seenAtMs: clock.monotonicMs() },
      ]);
      startChecks();
      for (const connection of listOf(byIdentity.get(key))) {
        if (covers(revocation, connection.identity)) connection.end(CLOSE.signedOut);
      }
    },
    endAll: (close) => forEach((connection) => connection.end(close)),
    close: () => stopChecks?.(),
  };
}

/** A copy, since connections leave while it is walked through. */
function listOf(own: Own | undefined): readonly Connection[] {
  if (own === undefined) return [];
  return own instanceof Set ? [...own] : [own];
}
