/** What somebody was let in with. */
export interface Credential {
  readonly kind: "user" | "visitor";
  readonly id: string;
  /** For users: the sign-in that it belongs to. */
  readonly session?: string;
  /** Wall clock, in milliseconds. */
  readonly issuedAtMs: number;
}

/** The end of credentials before their time: of one session, or without one of all that were issued up to `atMs`. */
export interface Revocation {
  readonly kind: "user" | "visitor";
  readonly id: string;
  readonly session?: string;
  /** Wall clock, in milliseconds. */
  readonly atMs: number;
  /** Wall clock, in milliseconds: nothing that it covers is valid any longer from then on. */
  readonly untilMs: number;
}

/** Whether a revocation ends a credential. */
export function covers(revocation: Revocation, credential: Credential): boolean {
  if (revocation.kind !== credential.kind || revocation.id !== credential.id) return false;
  return revocation.session === undefined
    ? credential.issuedAtMs <= revocation.atMs
    : credential.session === revocation.session;
}

/** What a ticket stands for. Kept under the ticket's hash, never with the ticket. */
export interface TicketRecord {
  /** What the ticket is good for, so that no other record can be taken for one. */
  readonly purpose: "ws";
  /** The key it was put under, compared on redemption: a reply to somebody else's take is no admission. */
  readonly hash: string;
  readonly user: string;
  /** The sign-in that it was issued to, and when its JWT was issued (wall clock, milliseconds). */
  readonly session: string;
  readonly issuedAtMs: number;
  /** Wall clock, in milliseconds: the record is worthless from then on, whatever the store thinks. */
  readonly expiresAtMs: number;
  /** Wall clock, in milliseconds: the end of the JWT that the ticket was issued for. */
  readonly tokenExpiresAtMs: number;
}

/**
 * Where tickets wait for their one use. There is no get and no delete, so that no read-then-delete race
 * can be written. Every method rejects when the store can't do it; `put` and `take` are never repeated.
 */
export interface TicketStore {
  /** Keeps `record` under `hash` (SHA-256 in hex) for `ttlMs` milliseconds; `false`, and nothing kept, when its session is revoked. */
  put(hash: string, record: TicketRecord, ttlMs: number): Promise<boolean>;
  /** Removes and returns in one step: of any number of callers one at most gets the record. */
  take(hash: string): Promise<TicketRecord | undefined>;
  /** Drops the unused tickets that it covers, refuses further ones, and tells every instance that watches. */
  revoke(revocation: Revocation): Promise<void>;
  isRevoked(credential: Credential): Promise<boolean>;
  /** Hands on what other instances revoke. A store that isn't shared has nothing to say. */
  watch?(onRevoked: (revocation: Revocation) => void): void;
  close(): Promise<void>;
}

/** A record as JSON that has exactly the expected shape; `undefined` for everything else. */
export function parseTicketRecord(text: unknown): TicketRecord | undefined {
  if (typeof text !== "string") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isTicketRecord(value) ? value : undefined;
}

export function isTicketRecord(value: unknown): value is TicketRecord {
  if (typeof value !== "object" || value === null) return false;
  const record = value as Partial<Record<keyof TicketRecord, unknown>>;
  return (
    record.purpose === "ws" &&
    typeof record.hash === "string" &&
    typeof record.user === "string" &&
    record.user !== "" &&
    typeof record.session === "string" &&
    Number.isSafeInteger(record.issuedAtMs) &&
    Number.isSafeInteger(record.expiresAtMs) &&
    Number.isSafeInteger(record.tokenExpiresAtMs)
  );
}
