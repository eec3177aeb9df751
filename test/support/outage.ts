import { expect } from "bun:test";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { Clock } from "../../src/lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import type { RedisTransport } from "../../src/redis/transport.ts";
import { fakeClock, settle, underClock } from "./clock.ts";
import { handshake, sendRaw } from "./raw.ts";
import { startServer, type TestServer } from "./server.ts";

/** What a request got while something was wrong with the store. */
export interface Outcome {
  readonly status: number;
  readonly code: string | undefined;
}
export const UNAVAILABLE: Outcome = { status: 503, code: "store_unavailable" };
export const REFUSED: Outcome = { status: 401, code: "ticket_refused" };
export const MINTED: Outcome = { status: 200, code: undefined };
export const OPENED: Outcome = { status: 101, code: undefined };

/** A ticket's form, which no store has. */
export const UNKNOWN_TICKET = "A".repeat(43);

/** A server whose tickets go over this transport, and nothing else: no feed that would use it, too. */
export function serverOn(open: (options: { clock: Clock }) => RedisTransport): TestServer {
  const clock = fakeClock();
  const store = redisTicketStore(open({ clock }));
  return startServer({ clock, store: { ...store, revocations: undefined } });
}

/** Requests a ticket. */
export async function mint(server: TestServer): Promise<Outcome> {
  const token = await server.token();
  const { status, headers, text } = await server.ask("/api/auth/ws-ticket", {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
  });
  return outcomeOf({ status, headers, body: text });
}

/** Opens a socket with a ticket. */
export async function upgrade({ port }: TestServer, ticket: string): Promise<Outcome> {
  return outcomeOf(await sendRaw(port, handshake(`/ws/chat?ticket=${ticket}`)));
}

/** Opens a socket with a visitor's cookie. */
export async function upgradeVisitor(
  { port, origin }: TestServer,
  cookie: string,
): Promise<Outcome> {
  const headers = { Origin: origin, Cookie: cookie };
  const request = handshake("/ws/chat", headers, { host: `127.0.0.1:${port}` });
  return outcomeOf(await sendRaw(port, request));
}

/** Status of the readiness route, past what the server remembers of the last probe. */
export async function ready(server: TestServer): Promise<number> {
  server.clock.advance(1_000);
  return (await server.ask("/readyz")).status;
}

/** Every 503 says when to come back. */
function outcomeOf(answer: { status: number; headers: Headers; body: string }): Outcome {
  const { status, headers, body } = answer;
  if (status < 300) return { status, code: undefined };
  if (status === 503) expect(headers.get("retry-after")).toBe("2");
  return { status, code: JSON.parse(body).code };
}

/**
 * Lets the deadline, short of 2 s, pass once the commands behind `work` have been sent. Fails when `work` is
 * done before that, and waits for it afterwards, while time stands still.
 */
export async function atDeadline<T>(
  { clock }: TestServer,
  reached: Promise<void>,
  work: Promise<T>,
): Promise<T> {
  let isDone = false;
  const done = () => {
    isDone = true;
  };
  work.then(done, done);
  await reached;
  clock.advance(DEPENDENCY_DEADLINE_MS - 1);
  await settle();
  expect(isDone).toBe(false);
  clock.advance(1);
  return work;
}

/** A ticket and a socket, as if nothing had ever been wrong. */
export async function expectHealthy(server: TestServer): Promise<void> {
  // The wait for feed entries doesn't survive a leap in time; the handshake makes the server read again.
  server.clock.advance(1_000);
  expect(await upgrade(server, await server.ticket())).toEqual(OPENED);
  expect((await server.ask("/readyz")).status).toBe(200);
}

/** Neither a ticket nor a socket, and not ready, however long it takes. */
export async function expectUnavailable(server: TestServer, ticket: string): Promise<void> {
  const refused = Promise.all([mint(server), upgrade(server, ticket)]);
  expect(await underClock(server.clock, refused)).toEqual([UNAVAILABLE, UNAVAILABLE]);
  expect(await underClock(server.clock, ready(server))).toBe(503);
}
