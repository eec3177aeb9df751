import { type Clock, systemClock } from "../lib/clock.ts";
import {
  covers,
  type Credential,
  type Revocation,
  type TicketRecord,
  type TicketStore,
} from "./store.ts";

/** Tickets a process keeps at once: about 50 MB. At the cap issuing is refused, nothing is thrown out. */
const MAX_TICKETS = 100_000;
/** A full map is walked through at most this often, in milliseconds: it takes a few of them. */
const WALK_INTERVAL_MS = 1_000;

/** Tickets in this process: for one server, and for tests. Two processes don't see each other's. */
export function memoryTicketStore(
  options: { clock?: Clock; maxTickets?: number } = {},
): TicketStore & { readonly size: number } {
  const { clock = systemClock, maxTickets = MAX_TICKETS } = options;
  /** In the order of `put`, which is nearly that of expiry. */
  const tickets = new Map<string, { record: TicketRecord; endsAtMs: number }>();

  let walkedAtMs = Number.NEGATIVE_INFINITY;

  /** Drops what has expired, from the front up to the first that hasn't; now and then all through when the map is full. */
  function sweep(nowMs: number): void {
    const walks = tickets.size >= maxTickets && nowMs - walkedAtMs >= WALK_INTERVAL_MS;
    if (walks) walkedAtMs = nowMs;
    for (const [hash, { endsAtMs }] of tickets) {
      if (endsAtMs <= nowMs) tickets.delete(hash);
      else if (!walks) return;
    }
  }

  /** One at most for each session, and for each identity as a whole. */
  const revocations = new Map<string, Revocation>();

  function isRevoked({ kind, id, session, issuedAtMs }: Credential): boolean {
    const cutoff = revocations.get(revocationKey({ kind, id }));
    const ofSession = session !== undefined && revocationKey({ kind, id, session });
    return (ofSession && revocations.has(ofSession)) || (cutoff?.atMs ?? -1) >= issuedAtMs;
  }

  return {
    async put(hash, record, ttlMs) {
      if (isRevoked({ ...record, kind: "user", id: record.user })) return false;
      const nowMs = clock.monotonicMs();
      sweep(nowMs);
      if (tickets.size >= maxTickets)
        throw new Error(`Ticket store is full: ${maxTickets} tickets`);
      tickets.set(hash, { record, endsAtMs: nowMs + ttlMs });
      return true;
    },
    async take(hash) {
      const ticket = tickets.get(hash);
      tickets.delete(hash);
      return ticket && ticket.endsAtMs > clock.monotonicMs() ? ticket.record : undefined;
    },
    async revoke(revocation) {
      const nowMs = clock.nowMs();
      for (const [key, { untilMs }] of revocations) if (untilMs <= nowMs) revocations.delete(key);
      const key = revocationKey(revocation);
      const { atMs, untilMs } = revocations.get(key) ?? revocation;
      revocations.set(key, {
        ...revocation,
        atMs: Math.max(atMs, revocation.atMs),
        untilMs: Math.max(untilMs, revocation.untilMs),
      });
      for (const [hash, { record }] of tickets) {
        if (covers(revocation, { ...record, kind: "user", id: record.user })) tickets.delete(hash);
      }
    },
    isRevoked: async (credential) => isRevoked(credential),
    async close() {
      tickets.clear();
      revocations.clear();
    },
    get size() {
      return tickets.size;
    },
  };
}

function revocationKey({ kind, id, session = "" }: Pick<Revocation, "kind" | "id" | "session">) {
  return `${kind}:${session}:${id}`;
}
