import { expect, test } from "bun:test";
import { type Socket, SocketState } from "../../src/sockets/socket.ts";
import { CLOSE } from "../../src/wire/close.ts";
import { fakeClock } from "../support/clock.ts";

/** The state of a socket whose credential lives this long, and what happens to the socket. */
function stateOf(lifeMs: number) {
  const clock = fakeClock();
  const closes: unknown[] = [];
  const events: unknown[] = [];
  const nowMs = clock.nowMs();
  const state = new SocketState({
    identity: { kind: "user", id: "alice", issuedAtMs: nowMs, expiresAtMs: nowMs + lifeMs },
    room: {},
    search: "?room=one&ticket=secret",
    limitKey: undefined,
    clock,
    log: (_, event, fields) => void events.push([event, fields?.code]),
  });
  const socket = { close: (code: number) => void closes.push(code) } as unknown as Socket;
  return { state, socket, closes, events, noticeAfterMs: state.noticeAtMs - nowMs };
}

test("a socket is ended once, for the first reason", () => {
  const { state, socket, closes, events } = stateOf(60_000);
  state.end(CLOSE.flooding);
  expect([closes, state.isEnded]).toEqual([[], false]);
  state.socket = socket;
  state.end(CLOSE.signedOut);
  state.end(CLOSE.flooding);
  expect(closes).toEqual([4500]);
  expect(events).toEqual([["socket_ended", 4500]]);
});

test.each([
  [3_600_000, 3_570_000],
  [60_000, 30_000],
  [40_000, 20_000],
])("a credential that lives %i ms has its notice after %i ms", (lifeMs, afterMs) => {
  expect(stateOf(lifeMs).noticeAfterMs).toBe(afterMs);
});

test("the parameters are the URL's, without the ticket", () => {
  expect(String(stateOf(60_000).state.parameters)).toBe("room=one");
});
