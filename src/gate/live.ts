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
  /** The credential is revoked or has expired. */
  end(close: Close): void;
}

/** The open connections of a gate, by identity: ended on expiry and revocation. */
export interface Live {
  readonly size: number;
  /** From now on; ends it at once if its credential was revoked a moment ago. */
  add(connection: Connection): void;
  remove(connection: Connection): void;
  /** All connections of one identity. */
  of(identity: Pick<Identity, "kind" | "id">): ReadonlySet<Connection>;
  revoke(revocation: Revocation): void;
  /** Revocations may have been missed. */
  endAll(close: Close): void;
  close(): void;
}

const NONE: ReadonlySet<Connection> = new Set();

export function createLive({ clock }: { clock: Clock }): Live {
  const byIdentity = new Map<string, Set<Connection>>();
  /** By whose they are and what of it they end. */
  const recent = new Map<string, { revocation: Revocation; atMs: number }>();
  let size = 0;
  let stopChecks: (() => void) | undefined;

  function check(): void {
    const wallMs = clock.nowMs();
    const nowMs = clock.monotonicMs();
    for (const [key, { atMs }] of recent) {
      if (nowMs - atMs >= REVOCATION_MEMORY_MS) recent.delete(key);
    }
    for (const connection of all()) {
      if (connection.identity.expiresAtMs <= wallMs) connection.end(CLOSE.credentialExpired);
    }
    if (size > 0 || recent.size > 0) return;
    stopChecks?.();
    stopChecks = undefined;
  }

  function startChecks(): void {
    stopChecks ??= clock.every(CHECK_INTERVAL_MS, check);
  }

  function all(): Connection[] {
    return [...byIdentity.values()].flatMap((own) => [...own]);
  }

  return {
    get size() {
      return size;
    },
    add(connection) {
      const key = identityKey(connection.identity);
      const own = byIdentity.get(key);
      if (own) own.add(connection);
      else byIdentity.set(key, new Set([connection]));
      size++;
      startChecks();
      for (const { revocation } of recent.values()) {
        if (covers(revocation, connection.identity)) return connection.end(CLOSE.signedOut);
      }
    },
    remove(connection) {
      const key = identityKey(connection.identity);
      const own = byIdentity.get(key);
      if (!own?.delete(connection)) return;
      size--;
      if (own.size === 0) byIdentity.delete(key);
    },
    of: (identity) => byIdentity.get(identityKey(identity)) ?? NONE,
    revoke(revocation) {
      const key = JSON.stringify([revocation.kind, revocation.id, revocation.session]);
      // As in the stores, a later one with an earlier time takes nothing back.
      const atMs = Math.max(revocation.atMs, recent.get(key)?.revocation.atMs ?? 0);
      recent.set(key, { revocation: { ...revocation, atMs }, atMs: clock.monotonicMs() });
      startChecks();
      for (const connection of [...(byIdentity.get(identityKey(revocation)) ?? [])]) {
        if (covers(revocation, connection.identity)) connection.end(CLOSE.signedOut);
      }
    },
    endAll(close) {
      for (const connection of all()) connection.end(close);
    },
    close: () => stopChecks?.(),
  };
}
