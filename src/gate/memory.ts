import { type Clock, systemClock } from "../lib/clock.ts";
import { createExpiryQueue } from "../lib/expiry.ts";
import { type Identity, identityKey } from "./identity.ts";
import { covers, type Revocation, type TicketRecord, type TicketStore } from "./store.ts";

/** Tickets that a process keeps at once: about 50 MB. At the cap issuing fails, and nothing is evicted. */
const MAX_TICKETS = 100_000;
/** How exactly expired tickets and revocations are removed, in milliseconds; they are worthless before that. */
const TICKET_BUCKET_MS = 1_000;
const REVOCATION_BUCKET_MS = 3_600_000;

/**
 * Tickets in this process: for a single server, and for tests. Two processes don't see each other's.
 *
 * @example
 * const gate = createGate({ users: { secret }, store: memoryTicketStore() });
 */
export function memoryTicketStore(
  options: { clock?: Clock; maxTickets?: number } = {},
): TicketStore & { readonly size: number } {
  const { clock = systemClock, maxTickets = MAX_TICKETS } = options;
  const tickets = new Map<string, { record: TicketRecord; endsAtMs: number }>();
  /** By the monotonic clock. */
  const ticketEnds = createExpiryQueue(TICKET_BUCKET_MS);
  /** At most one for each session, and for each identity as a whole. */
  const revocations = new Map<string, Revocation>();
  /** By the wall clock. */
  const revocationEnds = createExpiryQueue(REVOCATION_BUCKET_MS);

  function isRevoked(identity: Identity): boolean {
    if (revocations.size === 0) return false;
    const everything = revocations.get(revocationKey({ ...identity, session: undefined }));
    if (everything && covers(everything, identity)) return true;
    return identity.session !== undefined && revocations.has(revocationKey(identity));
  }

  return {
    async put(hash, record, ttlMs) {
      if (isRevoked(record.identity)) return false;
      const nowMs = clock.monotonicMs();
      ticketEnds.drop(nowMs, (key) => {
        const known = tickets.get(key);
        if (known && known.endsAtMs <= nowMs) tickets.delete(key);
      });
      if (tickets.size >= maxTickets) {
        throw new Error(`Ticket store is full: ${maxTickets} tickets`);
      }
      tickets.set(hash, { record, endsAtMs: nowMs + ttlMs });
      ticketEnds.add(hash, nowMs + ttlMs);
      return true;
    },
    async take(hash) {
      const ticket = tickets.get(hash);
      if (!ticket) return undefined;
      tickets.delete(hash);
      const isGood = ticket.endsAtMs > clock.monotonicMs() && !isRevoked(ticket.record.identity);
      return isGood ? ticket.record : undefined;
    },
    async revoke(revocation) {
      revocationEnds.drop(clock.nowMs(), (key) => {
        const known = revocations.get(key);
        if (!known) return;
        if (known.untilMs <= clock.nowMs()) revocations.delete(key);
        else revocationEnds.add(key, known.untilMs);
      });
      const key = revocationKey(revocation);
      const known = revocations.get(key);
      const { atMs, untilMs } = known ?? revocation;
      const merged = {
        ...revocation,
        atMs: Math.max(atMs, revocation.atMs),
        untilMs: Math.max(untilMs, revocation.untilMs),
      };
      revocations.set(key, merged);
      // A later end is looked at when the first one comes.
      if (!known) revocationEnds.add(key, merged.untilMs);
    },
    isRevoked: async (identity) => isRevoked(identity),
    async close() {
      tickets.clear();
      ticketEnds.clear();
      revocations.clear();
      revocationEnds.clear();
    },
    get size() {
      return tickets.size;
    },
  };
}

function revocationKey({ kind, id, session }: Pick<Revocation, "kind" | "id" | "session">): string {
  return session === undefined ? identityKey({ kind, id }) : JSON.stringify([kind, id, session]);
}
