import { isUserId } from "../wire/ids.ts";
import { earliestIssueMs, type Identity } from "./identity.ts";

/** Ends credentials before their time: of one session, or without one everything issued up to `atMs`. */
export interface Revocation {
  /** Whose credentials. */
  readonly kind: Identity["kind"];
  /** Their id. */
  readonly id: string;
  /** Only those of this session. */
  readonly session?: string | undefined;
  /** Wall clock, in milliseconds. */
  readonly atMs: number;
  /** Wall clock, in milliseconds: every credential that it covers has expired by then. */
  readonly untilMs: number;
}

/** Whether a revocation ends a credential. */
export function covers(revocation: Revocation, identity: Identity): boolean {
  if (revocation.kind !== identity.kind || revocation.id !== identity.id) return false;
  return revocation.session === undefined
    ? earliestIssueMs(identity) <= revocation.atMs
    : identity.session === revocation.session;
}

/** What a ticket stands for. Stored under the ticket's hash, never with the ticket. */
export interface TicketRecord {
  /** The key it was stored under, compared on redemption: a reply to another `take` is no admission. */
  readonly hash: string;
  /** What the ticket is good for; redeeming it for anything else is refused. */
  readonly purpose: string;
  /** Wall clock, in milliseconds: the record is worthless from then on, whatever the store's own clock says. */
  readonly expiresAtMs: number;
  /** Who redeems it. */
  readonly identity: Identity;
}

/** How revocations by other processes on the same store arrive. */
export interface RevocationFeed {
  /**
   * Once. One's own revocations may arrive, too. `onGap`: some may have been missed.
   * Nothing needs to be read while `isNeeded` returns `false`.
   */
  subscribe(listener: {
    onRevoked(revocation: Revocation): void;
    onGap(): void;
    isNeeded(): boolean;
  }): void;
  /** Resolves when every later revocation will arrive; rejects when that can't be said. */
  ready(): Promise<void>;
  /** Whether they can't be read now. */
  readonly isFailing: boolean;
  /** For metrics: how long ago everything had been read, in milliseconds. */
  readonly lagMs?: number | undefined;
}

/** So many acts in a window of time, in milliseconds: all at once or spread out. */
export interface SharedLimit {
  readonly allowed: number;
  readonly windowMs: number;
}

/**
 * Where tickets wait for their one use. There is no get and no delete, so that no read-then-delete race can
 * be written. Every method rejects when the store fails; `put` and `take` are never repeated.
 */
export interface TicketStore {
  /**
   * Stores `record` under `hash` (SHA-256 in hex) for `ttlMs` milliseconds. `false`, with nothing stored, when
   * its credential is revoked.
   */
  put(hash: string, record: TicketRecord, ttlMs: number): Promise<boolean>;
  /** Removes and returns in one step: of any number of callers, at most one gets the record. */
  take(hash: string): Promise<TicketRecord | undefined>;
  /**
   * Invalidates the unused tickets that it covers, refuses further ones, and notifies the other processes. A
   * repeated revocation never shortens the first.
   */
  revoke(revocation: Revocation): Promise<void>;
  /** Whether a credential was revoked. */
  isRevoked(identity: Identity): Promise<boolean>;
  /**
   * Counts one act of `key` over all processes that share the store, unless one of the limits is reached: returns the
   * milliseconds to wait, 0 when it was counted. Left out: each process counts for itself.
   */
  spend?(key: string, limits: readonly SharedLimit[]): Promise<number>;
  /**
   * Revocations by other processes. Left out by a store of this process alone; `"unavailable"` for a shared
   * store without them, which can issue and redeem, but not keep the promise that sign-out ends sockets.
   */
  readonly revocations?: RevocationFeed | "unavailable" | undefined;
  /** Closes what the store has opened or was given. */
  close(): Promise<void>;
}

/** A record from JSON of exactly the expected shape; `undefined` for everything else. */
export function parseTicketRecord(text: string): TicketRecord | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isTicketRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a store returned what was stored there, as far as its shape says. */
export function isTicketRecord(value: unknown): value is TicketRecord {
  const record = value as Partial<Record<keyof TicketRecord, unknown>> | null | undefined;
  return (
    typeof record === "object" &&
    record !== null &&
    typeof record.hash === "string" &&
    typeof record.purpose === "string" &&
    Number.isSafeInteger(record.expiresAtMs) &&
    isUserIdentity(record.identity)
  );
}

function isUserIdentity(value: unknown): boolean {
  const identity = value as Partial<Record<keyof Identity, unknown>> | null | undefined;
  return (
    typeof identity === "object" &&
    identity !== null &&
    identity.kind === "user" &&
    isUserId(identity.id) &&
    (identity.session === undefined || typeof identity.session === "string") &&
    Number.isSafeInteger(identity.issuedAtMs) &&
    (identity.toleranceMs === undefined || Number.isSafeInteger(identity.toleranceMs)) &&
    Number.isSafeInteger(identity.expiresAtMs)
  );
}
