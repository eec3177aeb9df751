import { expect, test } from "bun:test";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { createSockets } from "../../src/sockets/sockets.ts";
import { settle, underClock } from "../support/clock.ts";
import { openRawSocket } from "../support/frame.ts";
import { bareGate } from "../support/gate.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startServer } from "../support/server.ts";
import { watchStore } from "../support/store.ts";

/** Sockets of a server of one's own. */
function startOwn(limits = {}) {
  const { gate, clock } = bareGate({ ticketsPerMinute: 0 });
  const sockets = createSockets(gate, { message() {} }, limits);
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request, self) => sockets.upgrade(request, self),
    websocket: sockets.websocket,
  });
  return {
    ...{ clock, gate, sockets },
    async open() {
      const expiresAtMs = clock.nowMs() + 3_600_000;
      const issued = await gate.issue({ user: "alice", expiresAtMs });
      if (!issued.ok) throw new Error(issued.code);
      return openRawSocket(server.url.origin, `/?ticket=${issued.ticket}`);
    },
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      await gate.close();
    },
  };
}

test("a stop ends sockets whose peers say nothing, and takes no longer for them", async () => {
  await using own = startOwn();
  const silent = [await own.open(), await own.open()];
  for (const socket of silent) socket.stopReading();
  await own.sockets.stop();
  expect(own.sockets.size).toBe(0);
  for (const socket of silent) {
    socket.readOn();
    expect(await socket.closeCode).toBe(1012);
    socket.reset();
  }
});

test("a stop spreads its goodbyes over no more time than it may take", async () => {
  await using own = startOwn({ maxPerIdentity: 0 });
  const all = await Promise.all(Array.from({ length: 20 }, own.open));
  const startMs = own.clock.monotonicMs();
  const stopping = own.sockets.stop({ withinMs: 2_000, spreadMs: 60_000 });
  await settle();
  own.clock.advance(1_000);
  await settle();
  expect(own.sockets.size).toBeGreaterThan(5);
  expect(own.sockets.size).toBeLessThan(15);
  await underClock(own.clock, stopping);
  expect(own.clock.monotonicMs() - startMs).toBeLessThanOrEqual(2_100);
  for (const socket of all) expect(await socket.closeCode).toBe(1012);
  expect(own.clock.delays).toBe(0);
  for (const socket of all) socket.reset();
});

test("handshakes in progress count towards the limit of all sockets", async () => {
  const store = watchStore(memoryTicketStore());
  await using server = startServer({ store, limits: { maxSockets: 3 } });
  await using _open = await server.openUser();
  const tickets = [await server.ticket(), await server.ticket(), await server.ticket()];
  const knock = (ticket: string) => sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`));
  const [one = "", two = "", three = ""] = tickets;
  const held = store.hold();
  const pending = [knock(one), knock(two)];
  while (store.takes.length < 3) await settle(1);
  const refused = await knock(three);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
  expect(server.logLines.at(-1)).toContain(
    '"code":"too_many_requests","note":"The server is full"',
  );
  held.release();
  for (const answer of await Promise.all(pending)) expect(answer.status).toBe(101);
  // Their connections are closed again by now, and with them their sockets.
  while (server.server.socketCount > 1) await settle(1);
  expect((await knock(three)).status).toBe(101);
});
