import type { Deps } from "./gate.ts";
import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "../lib/deadline.ts";
import { sha256Hex, toBase64url } from "../lib/encoding.ts";
import { faultCode } from "../lib/log.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import { isTicketRecord } from "./store.ts";
import type { TokenUser } from "./token.ts";

/** Random bytes in a ticket. */
const TICKET_BYTES = 32;

/** Whether a string is written like a ticket: 32 bytes in canonical base64url, 43 characters. */
export function isTicket(value: string): boolean {
  return /^[\w-]{42}[AEIMQUYcgkosw048]$/.test(value);
}

/** The first six characters of a ticket's hash: what a log may say of it. */
function tagOf(hash: string): string {
  return hash.slice(0, 6);
}

type TicketDeps = Pick<Deps, "store" | "clock" | "randomBytes" | "log" | "ticketTtlMs">;

/**
 * Makes a ticket for a verified user and stores its hash. `expiresInSeconds` never outlives the user's
 * token: `token_invalid` when that has less than a second left or its session was signed out,
 * `store_unavailable` when the store failed.
 */
export async function issueTicket(
  user: TokenUser,
  { store, clock, randomBytes, log, ticketTtlMs }: TicketDeps,
): Promise<
  { readonly ok: true; readonly ticket: string; readonly expiresInSeconds: number } | Refusal
> {
  const nowMs = clock.nowMs();
  const lifeMs = Math.min(ticketTtlMs, user.tokenExpiresAtMs - nowMs);
  const expiresInSeconds = Math.floor(lifeMs / 1000);
  if (expiresInSeconds < 1) return refuse("token_invalid");

  const ticket = toBase64url(randomBytes(TICKET_BYTES));
  const hash = await sha256Hex(ticket);
  const ttlMs = expiresInSeconds * 1000;
  const record = {
    purpose: "ws",
    hash,
    user: user.id,
    session: user.session,
    issuedAtMs: user.issuedAtMs,
    expiresAtMs: nowMs + ttlMs,
    tokenExpiresAtMs: user.tokenExpiresAtMs,
  } as const;
  try {
    const kept = await withinDeadline(store.put(hash, record, ttlMs), DEPENDENCY_DEADLINE_MS);
    if (!kept) return refuse("token_invalid");
  } catch (error) {
    log("error", "store_failed", { code: faultCode(error), ticketTag: tagOf(hash) });
    return refuse("store_unavailable");
  }
  log("info", "ticket_issued", { user: user.id, ticketTag: tagOf(hash) });
  return { ok: true, ticket, expiresInSeconds };
}

/**
 * Spends a ticket for the user it stands for: `ticket_refused` for whatever the store doesn't have, or has
 * in any other shape, `store_unavailable` when it gave no answer. The ticket counts as spent either way.
 */
export async function redeemTicket(
  ticket: string,
  { store, clock, log }: TicketDeps,
): Promise<{ readonly ok: true; readonly user: TokenUser; readonly ticketTag: string } | Refusal> {
  const hash = await sha256Hex(ticket);
  const ticketTag = tagOf(hash);
  let record: unknown;
  try {
    record = await withinDeadline(store.take(hash), DEPENDENCY_DEADLINE_MS);
  } catch (error) {
    log("error", "store_failed", { code: faultCode(error), ticketTag });
    return refuse("store_unavailable");
  }
  if (!isTicketRecord(record) || record.hash !== hash || record.expiresAtMs <= clock.nowMs()) {
    log("info", "ticket_refused", { ticketTag });
    return refuse("ticket_refused");
  }
  return {
    ok: true,
    ticketTag,
    user: {
      id: record.user,
      session: record.session,
      issuedAtMs: record.issuedAtMs,
      tokenExpiresAtMs: record.tokenExpiresAtMs,
    },
  };
}
