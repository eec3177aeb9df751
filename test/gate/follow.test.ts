import { describe, expect, test } from "bun:test";
import { createGate, type Gate } from "../../src/gate/gate.ts";
import type { Identity } from "../../src/gate/identity.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { Revocation, TicketStore } from "../../src/gate/store.ts";
import { openRedis } from "../../src/open.ts";
import type { RedisTransport } from "../../src/redis/transport.ts";
import { CLOSE, type Close } from "../../src/wire/close.ts";
import { fakeClock } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate } from "../support/gate.ts";
import { HANDSHAKE } from "../support/raw.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { TOKEN_SECRET } from "../support/server.ts";

const NOW_MS = fakeClock().nowMs();
const HOUR_MS = 3_600_000;
/** How late an end may be noticed. */
const CHECK_MS = 1_000;
const VISITOR = "AAECAwQFBgcICQoLDA0ODw";

function userOf(changes: Partial<Identity> = {}): Identity {
  const times = { issuedAtMs: NOW_MS, expiresAtMs: NOW_MS + HOUR_MS };
  return { kind: "user", id: "alice", session: "one", ...times, ...changes };
}

/** Follows an identity and keeps the ends that come. */
function follow(gate: Gate, identity: Identity) {
  const ends: Close[] = [];
  return { ends, unfollow: gate.follow(identity, (close) => void ends.push(close)) };
}

describe("gate.follow calls onEnd", () => {
  test("when the credential expires, once, and not before", () => {
    const { gate, clock } = bareGate();
    const { ends } = follow(gate, userOf({ expiresAtMs: NOW_MS + 10_000 }));
    const other = follow(gate, userOf({ expiresAtMs: NOW_MS + HOUR_MS }));
    clock.advance(9_999);
    expect(ends).toEqual([]);
    clock.advance(CHECK_MS);
    expect(ends).toEqual([CLOSE.credentialExpired]);
    clock.advance(60_000);
    expect([ends.length, other.ends.length]).toEqual([1, 0]);
  });

  test("when the wall clock is set past the end", () => {
    const { gate, clock } = bareGate();
    const { ends } = follow(gate, userOf());
    clock.jumpWall(HOUR_MS);
    clock.advance(CHECK_MS);
    expect(ends).toEqual([CLOSE.credentialExpired]);
  });

  test("at the next check for a credential that has expired already", () => {
    const { gate, clock } = bareGate();
    const { ends } = follow(gate, userOf({ expiresAtMs: NOW_MS }));
    clock.advance(CHECK_MS);
    expect(ends).toEqual([CLOSE.credentialExpired]);
  });

  test("when its session is revoked, and for no other session or user", async () => {
    const { gate } = bareGate();
    const [ended, again] = [follow(gate, userOf()), follow(gate, userOf())];
    const others = [
      userOf({ session: "two" }),
      userOf({ session: undefined }),
      userOf({ id: "bob" }),
      userOf({ kind: "visitor", id: VISITOR, session: undefined }),
    ].map((identity) => follow(gate, identity));
    expect(await gate.revoke({ user: "alice", session: "one" })).toEqual({ ok: true });
    expect([ended.ends, again.ends]).toEqual([[CLOSE.signedOut], [CLOSE.signedOut]]);
    expect(others.flatMap(({ ends }) => ends)).toEqual([]);
  });

  test("when everything of its user is revoked, up to that moment and no later", async () => {
    const { gate, clock } = bareGate();
    clock.advance(60_000);
    const ended = [
      userOf(),
      userOf({ session: "two" }),
      userOf({ session: undefined, issuedAtMs: clock.nowMs() }),
      userOf({ issuedAtMs: clock.nowMs() + 5_000, toleranceMs: 5_000 }),
    ].map((identity) => follow(gate, identity));
    const others = [
      userOf({ issuedAtMs: clock.nowMs() + 1 }),
      userOf({ id: "bob" }),
      userOf({ kind: "visitor", id: VISITOR, session: undefined }),
    ].map((identity) => follow(gate, identity));
    await gate.revoke({ user: "alice" });
    expect(ended.map(({ ends }) => ends)).toEqual(Array(4).fill([CLOSE.signedOut]));
    expect(others.flatMap(({ ends }) => ends)).toEqual([]);
  });

  test("when its visitor is revoked, and not for a user of the same id", async () => {
    const { gate } = bareGate();
    const visitor = userOf({ kind: "visitor", id: VISITOR, session: undefined });
    const ended = follow(gate, visitor);
    const user = follow(gate, { ...visitor, kind: "user" });
    await gate.revoke({ visitor: VISITOR });
    expect([ended.ends, user.ends]).toEqual([[CLOSE.signedOut], []]);
  });

  test("at once, also where the store fails and revoke is refused", async () => {
    const revoke = () => Promise.reject(new Error("Gone"));
    const { gate } = bareGate({ store: { ...memoryTicketStore(), revoke } });
    const { ends } = follow(gate, userOf());
    expect(await gate.revoke({ user: "alice" })).toMatchObject({ code: "store_unavailable" });
    expect(ends).toEqual([CLOSE.signedOut]);
  });

  test("at once when it was revoked between admission and follow", async () => {
    const { gate, clock } = bareGate();
    const expiresAtMs = clock.nowMs() + HOUR_MS;
    const admit = async (user: string) => {
      const issued = await gate.issue({ user, session: "one", expiresAtMs });
      const url = `${BARE_ORIGIN}/live?ticket=${issued.ok ? issued.ticket : ""}`;
      const admitted = await gate.admit(new Request(url, { headers: HANDSHAKE }));
      if (!admitted.ok) throw new Error(admitted.code);
      return admitted.identity;
    };
    const [bySession, byUser, untouched] = [await admit("a"), await admit("b"), await admit("c")];
    await gate.revoke({ user: "a", session: "one" });
    await gate.revoke({ user: "b" });
    // A handshake may take its time.
    clock.advance(59_000);
    expect(follow(gate, bySession).ends).toEqual([CLOSE.signedOut]);
    expect(follow(gate, byUser).ends).toEqual([CLOSE.signedOut]);
    expect(follow(gate, untouched).ends).toEqual([]);
  });

  test("at once, too, when a second revocation with an earlier time came in between", async () => {
    const { gate, clock } = bareGate();
    clock.advance(60_000);
    const identity = userOf({ issuedAtMs: clock.nowMs() });
    await gate.revoke({ user: "alice" });
    clock.jumpWall(-30_000);
    await gate.revoke({ user: "alice" });
    expect(follow(gate, identity).ends).toEqual([CLOSE.signedOut]);
  });

  test("and with the others, where one of them throws", async () => {
    const { gate, logLines } = bareGate();
    const boom = () => {
      throw new Error("canary-7f3a");
    };
    gate.follow(userOf(), boom);
    const { ends } = follow(gate, userOf());
    gate.follow(userOf(), boom);
    expect(await gate.revoke({ user: "alice" })).toEqual({ ok: true });
    expect(ends).toEqual([CLOSE.signedOut]);
    expect(logLines.filter((line) => line.includes('"socket_failed"'))).toHaveLength(2);
    expect(logLines.join("")).not.toContain("canary-7f3a");
  });
});

describe("after unfollow", () => {
  test("nothing is called any more, neither on expiry nor on revocation", async () => {
    const { gate, clock } = bareGate();
    const expiring = follow(gate, userOf({ expiresAtMs: NOW_MS + 5_000 }));
    const revoked = follow(gate, userOf());
    const kept = follow(gate, userOf());
    expiring.unfollow();
    revoked.unfollow();
    revoked.unfollow();
    clock.advance(10_000);
    await gate.revoke({ user: "alice" });
    expect([expiring.ends, revoked.ends]).toEqual([[], []]);
    expect(kept.ends).toEqual([CLOSE.signedOut]);
    // Also after its end: nothing happens twice.
    kept.unfollow();
    await gate.revoke({ user: "alice" });
    expect(kept.ends).toEqual([CLOSE.signedOut]);
  });

  test("a second call takes nothing from other connections", async () => {
    const { gate, clock } = bareGate();
    const gone = follow(gate, userOf());
    const other = follow(gate, userOf({ id: "bob", expiresAtMs: NOW_MS + 60_000 }));
    gone.unfollow();
    const next = follow(gate, userOf());
    gone.unfollow();
    next.unfollow();
    next.unfollow();
    const last = follow(gate, userOf());
    next.unfollow();
    clock.advance(60_000 + CHECK_MS);
    expect(other.ends).toEqual([CLOSE.credentialExpired]);
    await gate.revoke({ user: "alice" });
    expect(last.ends).toEqual([CLOSE.signedOut]);
    expect([gone.ends, next.ends]).toEqual([[], []]);
  });

  test("no timer runs once the last revocation is a minute old", async () => {
    const { gate, clock } = bareGate();
    await gate.revoke({ user: "alice" });
    await gate.revoke({ user: "alice", session: "one" });
    clock.advance(59_000);
    expect(clock.timers).toBe(1);
    await gate.revoke({ user: "bob" });
    clock.advance(59_000);
    expect(clock.timers).toBe(1);
    clock.advance(1_000 + CHECK_MS);
    expect(clock.timers).toBe(0);
  });

  test("no timer runs, and one runs for any number of connections", () => {
    const { gate, clock } = bareGate();
    expect(clock.timers).toBe(0);
    const all = Array.from({ length: 100 }, (_, at) => follow(gate, userOf({ id: `user ${at}` })));
    expect(clock.timers).toBe(1);
    for (const { unfollow } of all) unfollow();
    clock.advance(CHECK_MS);
    expect(clock.timers).toBe(0);
    follow(gate, userOf());
    expect(clock.timers).toBe(1);
  });
});

test("a closed gate checks nothing any more", async () => {
  const { gate, clock } = bareGate();
  const { ends } = follow(gate, userOf({ expiresAtMs: NOW_MS + 5_000 }));
  await gate.close();
  clock.advance(10_000);
  expect([clock.timers, ends.length]).toEqual([0, 0]);
});

describe("revocations by other processes", () => {
  /** A store whose feed the test writes. */
  function feedStore() {
    type Listener = Parameters<
      Exclude<TicketStore["revocations"], "unavailable" | undefined>["subscribe"]
    >[0];
    let listener: Listener | undefined;
    const store: TicketStore = {
      ...memoryTicketStore({ clock: fakeClock() }),
      revocations: {
        subscribe(one) {
          listener = one;
        },
        ready: async () => {},
        isFailing: false,
      },
    };
    return { store, listener: () => listener as Listener };
  }
  const untilMs = NOW_MS + HOUR_MS;

  test.each<[string, Revocation]>([
    ["a session", { kind: "user", id: "alice", session: "one", atMs: NOW_MS, untilMs }],
    ["a user", { kind: "user", id: "alice", atMs: NOW_MS, untilMs }],
  ])("end what they cover: %s", (_, revocation) => {
    const { store, listener } = feedStore();
    const { gate } = bareGate({ store });
    const [ended, other] = [follow(gate, userOf()), follow(gate, userOf({ id: "bob" }))];
    listener().onRevoked(revocation);
    expect([ended.ends, other.ends]).toEqual([[CLOSE.signedOut], []]);
    // And what was admitted before them, and is followed after them.
    expect(follow(gate, userOf()).ends).toEqual([CLOSE.signedOut]);
  });

  test("that may have been missed end every connection, which reconnect", () => {
    const { store, listener } = feedStore();
    const { gate } = bareGate({ store });
    const all = [follow(gate, userOf()), follow(gate, userOf({ id: "bob" }))];
    listener().onGap();
    expect(all.map(({ ends }) => ends)).toEqual(Array(2).fill([CLOSE.missedEvents]));
    expect(CLOSE.missedEvents.reconnects).toBe(true);
  });

  test("are needed only while something is followed", () => {
    const { store, listener } = feedStore();
    const { gate } = bareGate({ store });
    expect(listener().isNeeded()).toBe(false);
    const { unfollow } = follow(gate, userOf());
    expect(listener().isNeeded()).toBe(true);
    unfollow();
    expect(listener().isNeeded()).toBe(false);
  });

  test("that a store doesn't receive: follow throws, and nothing is followed", async () => {
    const transport: RedisTransport = {
      isOrdered: true,
      command: async () => 1,
      close: async () => {},
    };
    const { gate, clock } = bareGate({ store: redisTicketStore(transport) });
    expect(() => gate.follow(userOf(), () => {})).toThrow(
      /^This gate's store doesn't receive the sign-outs of other processes/,
    );
    expect(clock.timers).toBe(0);
    expect(await gate.issue({ user: "alice", expiresAtMs: NOW_MS + HOUR_MS })).toMatchObject({
      ok: true,
    });
  });
});

describeWith("redis-server")("two gates on one Redis", () => {
  test("follow each other's revocations", async () => {
    await using redis = await startRedis();
    const start = async () =>
      createGate({
        users: { secret: TOKEN_SECRET },
        store: (await openRedis({ url: redis.url })).store,
      });
    await using here = await start();
    await using there = await start();
    const expiresAtMs = Date.now() + HOUR_MS;
    const issued = await here.issue({ user: "alice", session: "one", expiresAtMs });
    const redeemed = await there.redeem(issued.ok ? issued.ticket : "");
    if (!redeemed.ok) throw new Error(redeemed.code);
    const end = Promise.withResolvers<Close>();
    there.follow(redeemed.identity, end.resolve);
    const bob = follow(there, userOf({ id: "bob", expiresAtMs }));
    expect(await here.revoke({ user: "alice", session: "one" })).toEqual({ ok: true });
    expect(await end.promise).toEqual(CLOSE.signedOut);
    expect(bob.ends).toEqual([]);
  });
});
