/** Longest name of a session, in UTF-16 code units. */
export const MAX_SESSION_LENGTH = 255;

/** A user or visitor, whatever the proof. Times are wall clock, in milliseconds. */
export interface Identity<Claims = unknown> {
  /** A user has signed in; a visitor is anonymous. */
  readonly kind: "user" | "visitor";
  /** The user's id, or the visitor's: 22 base64url characters. */
  readonly id: string;
  /** For users: the name of the sign-in that the proof belongs to, where it has one. */
  readonly session?: string | undefined;
  /** When the proof (a JWT, a session, a cookie) was issued. */
  readonly issuedAtMs: number;
  /** How far the clock that `issuedAtMs` is from may be ahead of this server's; default 0. */
  readonly toleranceMs?: number | undefined;
  /** When the proof ends, and with it everything that it opened. */
  readonly expiresAtMs: number;
  /** What the ticket carried beside the user. */
  readonly claims?: Claims | undefined;
}

/** A user whose proof was checked by the caller. Times are wall clock, in milliseconds. */
export interface UserCredential<Claims = unknown> {
  /** The user's id: 1 to 255 characters, no control characters. */
  readonly user: string;
  /** A name for the sign-in, 1 to 255 characters, so that it can be ended alone; never its secret, for the store keeps it. */
  readonly session?: string | undefined;
  /**
   * When the proof was issued. Default: now, for a proof that was checked just now; then the end of everything of
   * a user ends what the proof has opened, and not the proof itself.
   */
  readonly issuedAtMs?: number | undefined;
  /** When the proof ends; what it opened never outlives it. */
  readonly expiresAtMs: number;
  /** Anything that the socket's handlers need: JSON, at most 1 KB. */
  readonly claims?: Claims | undefined;
}

/** What a user shows to those who write to them, as their JWT says it. */
export interface Profile {
  /** 1 to 100 characters. */
  readonly name?: string;
  /** A few lines, at most 500 characters. */
  readonly greeting?: string;
}

/** When the proof was issued by this server's clock, at the earliest: a revocation from then on covers it. */
export function earliestIssueMs({
  issuedAtMs,
  toleranceMs = 0,
}: Pick<Identity, "issuedAtMs" | "toleranceMs">): number {
  return issuedAtMs - toleranceMs;
}

/** An identity as the key of a map: a visitor's key never equals a user's. */
export function identityKey({ kind, id }: Pick<Identity, "kind" | "id">): string {
  return `${kind}:${id}`;
}

/** An identity as log fields. */
export function identityFields({ kind, id }: Pick<Identity, "kind" | "id">): {
  user?: string;
  visitor?: string;
} {
  return kind === "user" ? { user: id } : { visitor: id };
}
