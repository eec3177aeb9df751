import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Program, startProgram } from "./program.ts";

const API_KEY = "the API key of the tests";
const SIGNED_IN = { "X-API-Key": API_KEY };

/** Signed out by some tests, so each has its own. */
async function start(): Promise<Program> {
  return startProgram("sse", { environment: { API_KEY } });
}

let app: Program;
beforeAll(async () => {
  app = await start();
});
afterAll(() => app[Symbol.asyncDispose]());

/** `path` with a fresh ticket that was issued for `purpose`. */
async function withTicket(path: string, { purpose = path, of = app } = {}): Promise<string> {
  const { body } = await of.ask(purpose, { method: "POST", headers: SIGNED_IN });
  return `${path}?ticket=${body.ticket}`;
}

test("a ticket downloads a file, once", async () => {
  const path = await withTicket("/report.csv");
  expect((await app.ask(path)).text).toBe("of,alice\n");
  const again = await app.ask(path);
  expect({ status: again.status, code: again.body.code }).toEqual({
    status: 401,
    code: "ticket_refused",
  });
});

test("a ticket for one purpose is refused for another, and spent", async () => {
  const wrong = await withTicket("/report.csv", { purpose: "/events" });
  expect((await app.ask(wrong)).body.code).toBe("ticket_refused");
  expect((await app.ask(wrong.replace("/report.csv", "/events"))).body.code).toBe("ticket_refused");
  const socket = await app.ask("/api/auth/ws-ticket", { method: "POST", headers: SIGNED_IN });
  expect((await app.ask(`/report.csv?ticket=${socket.body.ticket}`)).body.code).toBe(
    "ticket_refused",
  );
});

test("no ticket is issued without a proof of identity", async () => {
  expect((await app.ask("/events", { method: "POST" })).status).toBe(401);
});

test("an event stream opens with a ticket and ends on sign-out", async () => {
  await using own = await start();
  const stream = await fetch(`${own.origin}${await withTicket("/events", { of: own })}`);
  expect(stream.headers.get("content-type")).toStartWith("text/event-stream");
  const reader = (stream.body as ReadableStream<Uint8Array>).getReader();
  const first = await reader.read();
  expect(new TextDecoder().decode(first.value)).toBe("data: Hello alice\n\n");
  const ended = reader.read();
  const signedOut = await own.ask("/api/auth/sign-out", { method: "POST", headers: SIGNED_IN });
  expect(signedOut.status).toBe(204);
  expect((await ended).done).toBe(true);
  const minted = await own.ask("/events", { method: "POST", headers: SIGNED_IN });
  expect(minted.body.code).toBe("token_invalid");
});

test("an event stream ends when its credential expires", async () => {
  await using own = await start();
  const stream = await fetch(`${own.origin}${await withTicket("/events", { of: own })}`);
  const reader = (stream.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  own.skipHour();
  expect((await reader.read()).done).toBe(true);
});
