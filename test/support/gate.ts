import { expect } from "bun:test";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { fakeClock } from "./clock.ts";
import { handshake, type RawAnswer, sendRaw } from "./raw.ts";
import { startServer, type TestServer, type TestServerOptions } from "./server.ts";
import { watchStore, type WatchedStore } from "./store.ts";

/** A server whose store is watched: what handshakes come to, and what they cost. */
export interface WatchedServer extends TestServer {
  readonly store: WatchedStore;
  /** One handshake with this ticket, otherwise without fault. */
  knock(ticket: string, headers?: Record<string, string | null>): Promise<RawAnswer>;
  /**
   * Sends what `write` makes of a fresh ticket, and returns the answer; fails unless the store was left alone,
   * no socket was opened, the log doesn't have the ticket, and the same ticket is let in afterwards.
   */
  turnAway(write: (ticket: string) => string): Promise<RawAnswer>;
}

export function startWatched({
  store: inner,
  ...options
}: TestServerOptions & { store?: TicketStore } = {}): WatchedServer {
  const { clock = fakeClock() } = options;
  const store = watchStore(inner ?? memoryTicketStore({ clock }));
  const server = startServer({ ...options, clock, store });
  const knock: WatchedServer["knock"] = (ticket, headers) =>
    sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`, headers));
  return Object.assign(server, {
    store,
    knock,
    async turnAway(write: (ticket: string) => string) {
      const ticket = await server.ticket();
      const takes = store.takes.length;
      const opened = opens(server);
      const answer = await sendRaw(server.port, write(ticket));
      expect(answer.status).not.toBe(101);
      expect(store.takes).toHaveLength(takes);
      expect(opens(server)).toBe(opened);
      expect(server.logLines.join("")).not.toContain(ticket);
      const next = await knock(
        ticket,
        options.origins ? { Origin: options.origins[0] as string } : {},
      );
      expect(next.status).toBe(101);
      return answer;
    },
  });
}

/** Sockets that were ever opened. */
function opens({ logLines }: TestServer): number {
  return logLines.filter((line) => line.includes('"socket_opened"')).length;
}

/** The `code` of a refusal's body; `undefined` for an answer without one. */
export function codeOf({ body }: RawAnswer): string | undefined {
  return /"code":"(\w+)"/.exec(body)?.[1];
}
