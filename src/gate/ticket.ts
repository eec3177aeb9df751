import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "../lib/deadline.ts";
import { sha256Hex, toBase64url, utf8 } from "../lib/encoding.ts";
import type { RateLimit } from "../lib/limit.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { createRecentMap } from "../lib/recent.ts";
import { isLine } from "../lib/text.ts";
import { type Refusal, refuse, refuseFor, refuseToken } from "../request/refusal.ts";
import { isUserId } from "../wire/ids.ts";
import { isSameText, type Signer } from "./hmac.ts";
import { type Identity, MAX_SESSION_LENGTH, type UserCredential } from "./identity.ts";
import { isTicketRecord, type TicketStore } from "./store.ts";
import { MAX_TOKEN_LIFETIME_MS } from "./claims.ts";

/** Random bytes in a ticket. */
const RANDOM_BYTES = 24;
/** The same in base64url: whole groups of three bytes. */
const RANDOM_LENGTH = 32;
/** Characters of the mark behind them, by which processes with the same secret know a ticket of their own: 60 bits. */
const MARK_LENGTH = 10;
/** Ends every ticket: the last of 43 characters has bits to spare, and not all are canonical. */
const END = "A";
/** A mark is known in the window of its ticket's issue and in the next one, in milliseconds: the longest life of a ticket. */
const MARK_WINDOW_MS = 300_000;
/** What marks are signed for. */
export const MARK_PURPOSE = "ws-ticket ticket mark";
/** The purpose of tickets that open sockets. */
export const SOCKET_PURPOSE = "socket";
/** Longest purpose, in UTF-16 code units. */
const MAX_PURPOSE_LENGTH = 64;
/** Tickets with a mark that a process remembers to have seen, at the least. */
const SEEN_AT_LEAST = 20_000;
/** Longest claims, in bytes of their JSON. */
const MAX_CLAIMS_BYTES = 1_024;

/** A ticket: what to hand to the client, and for how long it is good. */
export interface IssuedTicket {
  /** Distinguishes a ticket from a refusal. */
  readonly ok: true;
  /** 43 base64url characters. */
  readonly ticket: string;
  /** Relative, so that clocks don't matter; never longer than the credential's own life. */
  readonly expiresInSeconds: number;
}

/** An identity that was proved. */
export interface Identified<Claims = unknown> {
  /** Distinguishes an identity from a refusal. */
  readonly ok: true;
  /** Who it is. */
  readonly identity: Identity<Claims>;
}

/** Whether a string has the form of a ticket: 32 bytes (24 random ones, and the mark) in canonical base64url, 43 characters. */
export function isTicket(value: string): boolean {
  return /^[\w-]{42}[AEIMQUYcgkosw048]$/.test(value);
}

/** The first six characters of a ticket's hash: all that a log may say of it. */
function tagOf(hash: string): string {
  return hash.slice(0, 6);
}

/** The purpose as it is. Throws a `TypeError` for anything that can't be one. */
function requirePurpose(purpose: unknown): string {
  if (isLine(purpose, MAX_PURPOSE_LENGTH)) return purpose;
  throw new TypeError(`Option purpose must be a string of 1 to ${MAX_PURPOSE_LENGTH} characters`);
}

/** A credential of a caller's own as an identity. Throws a `TypeError` or `RangeError` that names what is wrong. */
export function toIdentity(credential: UserCredential, nowMs: number): Identity {
  const { user, session, issuedAtMs = nowMs, expiresAtMs, claims } = credential;
  if (!isUserId(user)) throw new TypeError("Option user must be a string of 1 to 255 characters");
  if (session !== undefined && !isLine(session, MAX_SESSION_LENGTH)) {
    throw new TypeError(`Option session must be a string of 1 to ${MAX_SESSION_LENGTH} characters`);
  }
  for (const [option, ms] of Object.entries({ issuedAtMs, expiresAtMs })) {
    if (typeof ms !== "number" || !Number.isFinite(ms)) {
      throw new TypeError(`Option ${option} must be a time in milliseconds`);
    }
  }
  return {
    kind: "user",
    id: user,
    ...(session !== undefined && { session }),
    issuedAtMs: Math.floor(issuedAtMs),
    expiresAtMs: Math.floor(Math.min(expiresAtMs, nowMs + MAX_TOKEN_LIFETIME_MS)),
    ...(claims !== undefined && { claims: requireClaims(claims) }),
  };
}

/** Claims as their JSON makes them. */
function requireClaims(claims: unknown): unknown {
  const json: string | undefined = JSON.stringify(claims);
  if (json === undefined) throw new TypeError("Option claims must be JSON");
  if (utf8(json).length > MAX_CLAIMS_BYTES) {
    throw new RangeError(`Option claims must be at most ${MAX_CLAIMS_BYTES} bytes of JSON`);
  }
  return JSON.parse(json);
}

/** Issues and redeems tickets. */
export interface Tickets {
  /**
   * Makes a ticket and stores its hash. `token_invalid` when the credential has less than a second left or
   * is revoked, `too_many_requests`, or `store_unavailable`.
   */
  issue(identity: Identity, purpose?: string): Promise<IssuedTicket | Refusal>;
  /**
   * Whether this process or one with the same secret has issued it lately, without a look into the store; only the
   * first time that it is presented here, so that nobody makes many attempts with one.
   */
  isOwn(ticket: string): Promise<boolean>;
  /**
   * Spends a ticket. `ticket_refused` for one that the store doesn't have, or that was issued for something
   * else; `store_unavailable` when the store failed. The ticket counts as spent either way.
   */
  redeem(
    ticket: string,
    purpose?: string,
  ): Promise<(Identified & { readonly ticketTag: string }) | Refusal>;
}

export function createTickets(options: {
  store: TicketStore;
  ttlMs: number;
  /** Tickets per user. */
  limit: RateLimit<string>;
  /** Marks tickets. */
  signer: Signer;
  clock: Clock;
  log: Log;
  randomBytes: (length: number) => Uint8Array;
}): Tickets {
  const { store, ttlMs: longestTtlMs, limit, signer, clock, log, randomBytes } = options;
  /** Hashes of what was presented. */
  const seen = createRecentMap<string, true>({
    keepMs: MARK_WINDOW_MS,
    atLeast: SEEN_AT_LEAST,
    clock,
  });

  /** The mark of a ticket that was issued `windowsAgo`. */
  async function markOf(random: string, windowsAgo = 0): Promise<string> {
    const window = Math.floor(clock.nowMs() / MARK_WINDOW_MS) - windowsAgo;
    return (await signer.mac(`${window}|${random}`)).slice(0, MARK_LENGTH) + END;
  }

  return {
    async issue(identity, purpose = SOCKET_PURPOSE) {
      requirePurpose(purpose);
      const nowMs = clock.nowMs();
      const lifeMs = Math.min(longestTtlMs, identity.expiresAtMs - nowMs);
      const expiresInSeconds = Math.floor(lifeMs / 1000);
      if (expiresInSeconds < 1) return refuseToken("expired");
      const waitMs = limit.take(identity.id);
      if (waitMs > 0) return refuseFor(waitMs);

      const random = toBase64url(randomBytes(RANDOM_BYTES));
      const ticket = random + (await markOf(random));
      const hash = await sha256Hex(ticket);
      const ttlMs = expiresInSeconds * 1000;
      const record = { hash, purpose, expiresAtMs: nowMs + ttlMs, identity };
      try {
        const put = store.put(hash, record, ttlMs);
        if (!(await withinDeadline(put, DEPENDENCY_DEADLINE_MS, clock))) {
          return refuseToken("revoked");
        }
      } catch (error) {
        log("error", "store_failed", { code: faultCode(error), ticketTag: tagOf(hash) });
        return refuse("store_unavailable");
      }
      log("info", "ticket_issued", { user: identity.id, ticketTag: tagOf(hash) });
      return { ok: true, ticket, expiresInSeconds };
    },

    async isOwn(ticket) {
      const [random, mark] = [ticket.slice(0, RANDOM_LENGTH), ticket.slice(RANDOM_LENGTH)];
      const isMarked =
        isSameText(await markOf(random), mark) || isSameText(await markOf(random, 1), mark);
      if (!isMarked) return false;
      const hash = await sha256Hex(ticket);
      if (seen.get(hash)) return false;
      seen.set(hash, true);
      return true;
    },

    async redeem(ticket, purpose = SOCKET_PURPOSE) {
      requirePurpose(purpose);
      if (typeof ticket !== "string" || !isTicket(ticket)) return refuse("ticket_refused");
      const hash = await sha256Hex(ticket);
      const ticketTag = tagOf(hash);
      let record: unknown;
      try {
        record = await withinDeadline(store.take(hash), DEPENDENCY_DEADLINE_MS, clock);
      } catch (error) {
        log("error", "store_failed", { code: faultCode(error), ticketTag });
        return refuse("store_unavailable");
      }
      if (
        !isTicketRecord(record) ||
        record.hash !== hash ||
        record.purpose !== purpose ||
        record.expiresAtMs <= clock.nowMs()
      ) {
        log("info", "ticket_refused", { ticketTag });
        return refuse("ticket_refused");
      }
      return { ok: true, identity: record.identity, ticketTag };
    },
  };
}
