import { type Clock, systemClock } from "../clock.ts";
import type { TicketRecord, TicketStore } from "./store.ts";

/** Tickets a process keeps at once: about 50 MB. At the cap issuing is refused, nothing is thrown out. */
const MAX_TICKETS = 100_000;

/** Tickets in this process: for one server, and for tests. Two processes don't see each other's. */
export function memoryTicketStore(
  options: { clock?: Clock; maxTickets?: number } = {},
): TicketStore & { readonly size: number } {
  const { clock = systemClock, maxTickets = MAX_TICKETS } = options;
  /** In the order of `put`, which is nearly that of expiry. */
  const tickets = new Map<string, { record: TicketRecord; endsAtMs: number }>();

  /** Drops what has expired, from the front up to the first that hasn't; all through when the map is full. */
  function sweep(nowMs: number): void {
    for (const [hash, { endsAtMs }] of tickets) {
      if (endsAtMs <= nowMs) tickets.delete(hash);
      else if (tickets.size < maxTickets) return;
    }
  }

  return {
    async put(hash, record, ttlMs) {
      const nowMs = clock.monotonicMs();
      sweep(nowMs);
      if (tickets.size >= maxTickets)
        throw new Error(`Ticket store is full: ${maxTickets} tickets`);
      tickets.set(hash, { record, endsAtMs: nowMs + ttlMs });
    },
    async take(hash) {
      const ticket = tickets.get(hash);
      tickets.delete(hash);
      return ticket && ticket.endsAtMs > clock.monotonicMs() ? ticket.record : undefined;
    },
    async close() {
      tickets.clear();
    },
    get size() {
      return tickets.size;
    },
  };
}
