import { describe, expect, spyOn, test } from "bun:test";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { fakeClock } from "../support/clock.ts";
import { startServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { recordOf } from "../support/store.ts";

const TTL_MS = 30_000;
/** Expired tickets are removed this late at most. */
const LATE_MS = 1_000;

function put(store: TicketStore, hash: string, ttlMs = TTL_MS): Promise<boolean> {
  return store.put(hash, recordOf(hash), ttlMs);
}

describe("memory store", () => {
  test("at the cap refuses the next ticket and evicts none", async () => {
    const store = memoryTicketStore({ clock: fakeClock(), maxTickets: 3 });
    for (const hash of ["a", "b", "c"]) await put(store, hash);
    await expect(put(store, "d")).rejects.toThrow("Ticket store is full: 3 tickets");
    expect(store.size).toBe(3);
    for (const hash of ["a", "b", "c"]) expect(await store.take(hash)).toEqual(recordOf(hash));
    expect(await store.take("d")).toBeUndefined();
  });

  test("at the cap has room again for each ticket that was taken", async () => {
    const store = memoryTicketStore({ clock: fakeClock(), maxTickets: 2 });
    await put(store, "a");
    await put(store, "b");
    await store.take("a");
    await put(store, "c");
    await expect(put(store, "d")).rejects.toThrow();
  });

  test("at the cap finds what has expired behind a ticket that lives longer", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock, maxTickets: 3 });
    await put(store, "long", 300_000);
    await put(store, "short", 1_000);
    await put(store, "middle", 100_000);
    clock.advance(1_000 + LATE_MS);
    await put(store, "next");
    expect(store.size).toBe(3);
    expect(await store.take("long")).toEqual(recordOf("long"));
    expect(await store.take("middle")).toEqual(recordOf("middle"));
  });

  test("holds 100,000 tickets by default", async () => {
    const store = memoryTicketStore({ clock: fakeClock() });
    for (let index = 0; index < 100_000; index++) await put(store, String(index));
    await expect(put(store, "one more")).rejects.toThrow("Ticket store is full: 100000 tickets");
    expect(await store.take("0")).toEqual(recordOf("0"));
  });

  test("drops what has expired, and nothing else, when the next ticket comes", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    for (let index = 0; index < 1_000; index++) {
      await put(store, String(index));
      clock.advance(10);
    }
    expect(store.size).toBe(1_000);
    clock.advance(TTL_MS - 5_000);
    await put(store, "next");
    // Of the 1,000, put within 10 s, those that expired 5 s ago or earlier are gone.
    expect(store.size).toBe(500 + 1);
    expect(await store.take("500")).toBeUndefined();
    expect(await store.take("501")).toEqual(recordOf("501"));
  });

  test("never gives out what has expired, though it may still be there", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    clock.advance(LATE_MS / 2);
    await put(store, "a");
    clock.advance(TTL_MS);
    await put(store, "next");
    expect(store.size).toBe(2);
    expect(await store.take("a")).toBeUndefined();
    clock.advance(TTL_MS + LATE_MS);
    await put(store, "last");
    expect(store.size).toBe(1);
  });

  test("stays small under a steady flow of unused tickets", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    for (let index = 0; index < 10_000; index++) {
      await put(store, String(index));
      clock.advance(100);
    }
    expect(store.size).toBeLessThanOrEqual((TTL_MS + LATE_MS) / 100 + 1);
  });

  test("forgets a ticket that expired before it was taken", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    await put(store, "a");
    clock.advance(TTL_MS);
    expect(await store.take("a")).toBeUndefined();
    expect(store.size).toBe(0);
  });

  test("walks through none of the tickets and sign-outs that it holds, so that each operation costs the same", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    const untilMs = clock.nowMs() + 30 * 86_400_000;
    const signOut = (at: number) =>
      store.revoke({ kind: "user", id: `user ${at}`, session: "one", atMs: at, untilMs });
    for (let at = 0; at < 20_000; at++) {
      await put(store, `${at}`);
      await signOut(at);
    }
    const walks = (["entries", "forEach", "keys", "values"] as const).map((method) =>
      spyOn(Map.prototype, method),
    );
    const iterator = spyOn(Map.prototype, Symbol.iterator as never);
    for (let at = 20_000; at < 20_100; at++) {
      await put(store, `${at}`);
      await signOut(at);
      await store.take(`${at - 50}`);
      await store.isRevoked(recordOf("a").identity);
      clock.advance(10);
    }
    const calls = [...walks, iterator].map((spy) => spy.mock.calls.length);
    for (const spy of [...walks, iterator]) spy.mockRestore();
    expect(calls).toEqual([0, 0, 0, 0, 0]);
  });

  test("keeps one sign-out for each user, however often it is repeated, until the last one is over", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    const identity = { ...recordOf("a").identity, issuedAtMs: 0 };
    const { kind, id } = identity;
    const pushes = spyOn(Array.prototype, "push");
    for (let n = 0; n < 1_000; n++) {
      const atMs = clock.nowMs();
      await store.revoke({ kind, id, atMs, untilMs: atMs + 86_400_000 });
      clock.advance(60_000);
    }
    const count = pushes.mock.calls.filter(([key]) => String(key).includes(id)).length;
    pushes.mockRestore();
    expect(count).toBe(0);
    const signOutOfOthers = () =>
      store.revoke({ kind, id: "bob", atMs: clock.nowMs(), untilMs: clock.nowMs() + 1 });
    clock.advance(86_400_000 - 120_000);
    await signOutOfOthers();
    expect(await store.isRevoked(identity)).toBe(true);
    clock.advance(2 * 3_600_000);
    await signOutOfOthers();
    expect(await store.isRevoked(identity)).toBe(false);
  });

  test("runs no timers", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    for (let index = 0; index < 100; index++) await put(store, String(index));
    expect(clock.timers).toBe(0);
  });

  test.each([
    ["forward", 86_400_000],
    ["back", -86_400_000],
  ])("neither ends nor prolongs a ticket when the wall clock jumps %s", async (_, jumpMs) => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    await put(store, "a");
    await put(store, "b");
    clock.jumpWall(jumpMs);
    clock.advance(TTL_MS - 1);
    expect(await store.take("a")).toEqual(recordOf("a"));
    clock.advance(1);
    expect(await store.take("b")).toBeUndefined();
  });

  test("is empty once closed", async () => {
    const store = memoryTicketStore({ clock: fakeClock() });
    await put(store, "a");
    await store.close();
    await store.close();
    expect(store.size).toBe(0);
    expect(await store.take("a")).toBeUndefined();
  });

  test("while it is full, issuing is refused with 503, and tickets already out still work", async () => {
    const clock = fakeClock();
    await using server = startServer({ clock, store: memoryTicketStore({ clock, maxTickets: 1 }) });
    const ticket = await server.ticket();
    const refused = await server.mint(await server.token());
    expect(refused.status).toBe(503);
    expect(await refused.json()).toMatchObject({ code: "store_unavailable" });
    await using socket = openSocket(`ws://127.0.0.1:${server.port}/ws/chat?ticket=${ticket}`);
    await socket.opened;
    expect((await server.mint(await server.token())).status).toBe(200);
  });
});
