import { expect } from "bun:test";
import { createGate, type Gate } from "../../src/gate/gate.ts";
import type { GateOptions } from "../../src/gate/gate-options.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { signToken } from "../../src/gate/token.ts";
import { createLog } from "../../src/lib/log.ts";
import { type FakeClock, fakeClock } from "./clock.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "./people.ts";
import { handshake, type RawAnswer, sendRaw } from "./raw.ts";
import { startServer, type TestServer, type TestServerOptions } from "./server.ts";
import { watchStore, type WatchedStore } from "./store.ts";

/** Where a bare gate's requests go, unless they say otherwise: on loopback, so that it is the gate's own origin. */
export const BARE_ORIGIN = "http://127.0.0.1:3000";

/** A gate without a server around it, as a platform calls it. */
export interface BareGate<Claims = unknown> {
  readonly gate: Gate<Claims>;
  readonly clock: FakeClock;
  /** Every log line so far. */
  readonly logLines: readonly string[];
  /** What `gate.fetch` makes of a request to this path. */
  send(path: string, init?: RequestInit, origin?: string): Promise<Response>;
  /** Headers with a token of a user's, an hour long. */
  bearer(user?: string, claims?: Record<string, unknown>): Promise<{ Authorization: string }>;
}

export function bareGate<Claims = unknown>(
  options: Partial<Omit<GateOptions<Claims>, "clock">> & { clock?: FakeClock } = {},
): BareGate<Claims> {
  const { clock = fakeClock() } = options;
  const logLines: string[] = [];
  const gate = createGate<Claims>({
    users: { secret: TOKEN_SECRET },
    visitors: { secret: SESSION_SECRET },
    log: createLog({ level: "debug", clock, write: (line) => void logLines.push(line) }),
    ...options,
    clock,
  });
  return {
    gate,
    clock,
    logLines,
    send: (path, init, origin = BARE_ORIGIN) => gate.fetch(new Request(`${origin}${path}`, init)),
    async bearer(user = "alice", claims = {}) {
      const expiresAtMs = clock.nowMs() + 3_600_000;
      const token = await signToken({ secret: TOKEN_SECRET, user, expiresAtMs, claims });
      return { Authorization: `Bearer ${token}` };
    },
  };
}

/** A server whose store is watched: what handshakes come to, and what they cost. */
export interface WatchedServer extends TestServer {
  readonly store: WatchedStore;
  /** One handshake with this ticket, otherwise without fault. */
  knock(ticket: string, headers?: Record<string, string | null>): Promise<RawAnswer>;
  /**
   * Sends what `write` makes of a fresh ticket, and returns the answer; fails unless the store was left alone,
   * no socket was opened, the log doesn't have the ticket, and the same ticket is let in afterwards.
   */
  turnAway(
    write: (ticket: string) => string,
    options?: { ticket?: Promise<string> },
  ): Promise<RawAnswer>;
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
    async turnAway(
      write: (ticket: string) => string,
      { ticket: given = server.ticket() }: { ticket?: Promise<string> } = {},
    ) {
      const ticket = await given;
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

/** A ticket that another process on the same store has issued, one with the same secret unless it says otherwise. */
export async function ticketFromSibling(
  { clock, store }: Pick<WatchedServer, "clock" | "store">,
  { user = "alice", secret = TOKEN_SECRET }: { user?: string; secret?: Uint8Array } = {},
): Promise<string> {
  const { gate } = bareGate({ clock, store, users: { secret } });
  const issued = await gate.issue({ user, expiresAtMs: clock.nowMs() + 3_600_000 });
  if (!issued.ok) throw new Error(`Ticket was refused: ${issued.code}`);
  return issued.ticket;
}

/** The same of a process that shares no secret. */
export async function ticketFromElsewhere(
  server: Pick<WatchedServer, "clock" | "store">,
  user?: string,
): Promise<string> {
  return ticketFromSibling(server, { ...(user && { user }), secret: SESSION_SECRET });
}

/** Sockets that were ever opened. */
function opens({ logLines }: TestServer): number {
  return logLines.filter((line) => line.includes('"socket_opened"')).length;
}

/** The `code` of a refusal's body; `undefined` for an answer without one. */
export function codeOf({ body }: RawAnswer): string | undefined {
  return /"code":"(\w+)"/.exec(body)?.[1];
}

/** Fails unless a response is this refusal: its status, its code, and nothing more in its body. */
export async function expectRefusal(
  response: Response,
  status: number,
  code: string,
): Promise<void> {
  const body = (await response.json()) as Record<string, unknown>;
  expect([response.status, body.code, body.status]).toEqual([status, code, status]);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(Object.keys(body)).toEqual(["type", "status", "code", "detail"]);
}

/** Fails unless these are the headers that every response of the API has, and no others that say what it runs on. */
export function expectHeaders(headers: Headers): void {
  expect(headers.get("cache-control")).toBe("no-store");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("referrer-policy")).toBe("no-referrer");
  expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
  for (const name of ["server", "x-powered-by"]) expect(headers.has(name)).toBe(false);
}
