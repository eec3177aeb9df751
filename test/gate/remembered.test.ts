import { describe, expect, test } from "bun:test";
import type { Identity } from "../../src/gate/identity.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { sharedTicketStore } from "../../src/gate/redis.ts";
import { covers, type Revocation, type TicketStore } from "../../src/gate/store.ts";
import { signToken } from "../../src/gate/token.ts";
import { nativeRedisTransport } from "../../src/redis/native.ts";
import { fakeClock } from "../support/clock.ts";
import { bareGate } from "../support/gate.ts";
import { TOKEN_SECRET } from "../support/people.ts";
import { startRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const YEAR_MS = 365 * DAY_MS;
const NOW_MS = Date.parse("2026-01-01T00:00:00Z");

/** A gate with tickets in memory, under a clock that stands still. */
function world() {
  const { send, clock } = bareGate();
  const post = async (path: string, token: string, body?: string) => {
    const headers = { Authorization: `Bearer ${token}` };
    return (await send(path, { method: "POST", headers, ...(body && { body }) })).status;
  };
  return {
    clock,
    token: (claims: Record<string, unknown>, { user = "alice", ttlMs = HOUR_MS } = {}) =>
      signToken({
        ...{ secret: TOKEN_SECRET, user, expiresAtMs: clock.nowMs() + ttlMs },
        claims: { iat: clock.nowMs() / 1000, ...claims },
      }),
    mint: (token: string) => post("/api/auth/ws-ticket", token),
    signOut: (token: string, body?: string) => post("/api/auth/sign-out", token, body),
  };
}

describe("a sign-out is remembered", () => {
  test("for 30 days where it ended one session, for later tokens have the same sid", async () => {
    const { clock, token, mint, signOut } = world();
    expect(await signOut(await token({ sid: "one" }))).toBe(204);
    clock.advance(30 * DAY_MS - 1_000);
    // What is over leaves with the next sign-out, an hour late at most.
    await signOut(await token({ sid: "x" }, { user: "bob" }));
    expect(await mint(await token({ sid: "one" }))).toBe(401);
    expect(await mint(await token({ sid: "other" }))).toBe(200);
    clock.advance(HOUR_MS + 1_000);
    expect(await signOut(await token({ sid: "other" }))).toBe(204);
    expect(await mint(await token({ sid: "one" }))).toBe(200);
  });

  test("for as long as the token lives, where that is longer", async () => {
    const { clock, token, mint, signOut } = world();
    const long = await token({ sid: "one" }, { ttlMs: YEAR_MS });
    expect(await signOut(long)).toBe(204);
    clock.advance(YEAR_MS - DAY_MS);
    await signOut(await token({ sid: "x" }, { user: "bob" }));
    expect(await mint(long)).toBe(401);
  });

  test("for as long as any token may live, where it ended everything", async () => {
    const { clock, token, mint, signOut } = world();
    const long = await token({ sid: "other" }, { ttlMs: 9 * YEAR_MS });
    expect(await signOut(await token({ sid: "one" }), '{"everywhere":true}')).toBe(204);
    clock.advance(8 * YEAR_MS);
    await signOut(await token({ sid: "x" }, { user: "bob" }));
    expect(await mint(long)).toBe(401);
    expect(await mint(await token({ sid: "other" }))).toBe(200);
  });
});

describe("a repeated revocation never shortens the first", () => {
  const session: Revocation = {
    ...{ kind: "user", id: "alice", session: "one" },
    ...{ atMs: NOW_MS, untilMs: NOW_MS + YEAR_MS },
  };
  const { session: _, ...everything } = session;
  const shorter = (revocation: Revocation): Revocation => ({
    ...revocation,
    atMs: revocation.atMs - 1_000,
    untilMs: NOW_MS + DAY_MS,
  });
  const identity: Identity = {
    ...{ kind: "user", id: "alice", session: "one" },
    ...{ issuedAtMs: NOW_MS, expiresAtMs: NOW_MS + YEAR_MS },
  };
  const BOTH = [
    ["of a session", session],
    ["of everything", everything],
  ] as const;

  test.each(BOTH)("%s, in memory", async (_, revocation) => {
    const clock = fakeClock(NOW_MS);
    const store: TicketStore = memoryTicketStore({ clock });
    // The first one says when it is looked at again.
    await store.revoke(shorter(revocation));
    await store.revoke(revocation);
    await store.revoke(shorter(revocation));
    expect(await store.isRevoked(identity)).toBe(true);
    clock.advance(YEAR_MS - DAY_MS);
    await store.revoke({ ...revocation, id: "bob" });
    expect(await store.isRevoked(identity)).toBe(true);
  });

  describeWith("redis-server")("with Redis", () => {
    test.each(BOTH)("%s", async (_, revocation) => {
      await using redis = await startRedis();
      const transport = nativeRedisTransport({ url: redis.url });
      const store = sharedTicketStore({ transport, feed: undefined });
      await store.revoke(revocation);
      await store.revoke(shorter(revocation));
      expect(await store.isRevoked(identity)).toBe(true);
      const [key = ""] = (await redis.command("KEYS", "ws-ticket:revoked:*")) as string[];
      const leftMs = Number(await redis.command("PTTL", key));
      expect(leftMs).toBeGreaterThan(YEAR_MS - HOUR_MS);
      expect(leftMs).toBeLessThanOrEqual(YEAR_MS);
      await store.close();
    });
  });
});

describe("a user's list of unused tickets in Redis", () => {
  const identity: Identity = {
    ...{ kind: "user", id: "alice", session: "one" },
    ...{ issuedAtMs: NOW_MS, expiresAtMs: NOW_MS + YEAR_MS },
  };

  describeWith("redis-server")("with Redis", () => {
    test("has no expired tickets, and expires with the last", async () => {
      await using redis = await startRedis();
      const transport = nativeRedisTransport({ url: redis.url });
      const store = sharedTicketStore({ transport, feed: undefined });
      const put = (n: number, ttlMs: number) => {
        const hash = n.toString(16).padStart(64, "0");
        const record = { hash, purpose: "socket", expiresAtMs: NOW_MS + YEAR_MS, identity };
        return store.put(hash, record, ttlMs);
      };
      const key = "ws-ticket:unused:alice";
      for (let n = 0; n < 5; n++) await put(n, 1);
      await put(5, 60_000);
      while ((await redis.ticketKeys()).length > 1);
      await put(6, 60_000);
      expect(await redis.command("ZCARD", key)).toBe(2);
      const leftMs = Number(await redis.command("PTTL", key));
      expect(leftMs).toBeGreaterThan(60_000);
      expect(leftMs).toBeLessThanOrEqual(300_000);
      await store.close();
    });
  });
});

describe("covers", () => {
  const identity: Identity = {
    ...{ kind: "user", id: "alice", session: "one", issuedAtMs: NOW_MS, toleranceMs: 5_000 },
    expiresAtMs: NOW_MS + HOUR_MS,
  };
  const base: Revocation = { kind: "user", id: "alice", atMs: NOW_MS, untilMs: NOW_MS + YEAR_MS };

  test.each<[string, Partial<Revocation>, boolean]>([
    ["everything of theirs, issued before", {}, true],
    ["everything of theirs, issued up to 5 s later", { atMs: NOW_MS - 5_000 }, true],
    ["everything of theirs, issued later", { atMs: NOW_MS - 5_001 }, false],
    ["their session", { session: "one" }, true],
    ["their session, however much later it was issued", { session: "one", atMs: 0 }, true],
    ["another session", { session: "two" }, false],
    ["somebody else", { id: "bob" }, false],
    ["somebody else's session of that name", { id: "bob", session: "one" }, false],
    ["a visitor of that id", { kind: "visitor" }, false],
    ["a visitor's session of that name", { kind: "visitor", session: "one" }, false],
  ])("%s", (_, revocation, isCovered) => {
    expect(covers({ ...base, ...revocation }, identity)).toBe(isCovered);
  });
});
