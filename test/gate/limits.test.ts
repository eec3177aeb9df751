import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { partsOf } from "../../src/gate/gate.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import type { Incoming } from "../../src/request/incoming.ts";
import { underClock } from "../support/clock.ts";
import { BARE_ORIGIN, type BareGate, bareGate } from "../support/gate.ts";
import { freePort } from "../support/redis.ts";

const SIGN_OUT = "/api/auth/sign-out";
const WINDOW_MS = 60_000;

describe("failed attempts of an address", () => {
  const from = (limitKey: string | undefined) => ({ limitKey }) as Incoming;
  const anyStep = fc.record({
    failures: fc.nat(500),
    attempts: fc.nat(30),
    afterMs: fc.oneof(fc.nat(200), fc.nat(5_000), fc.nat(3 * WINDOW_MS)),
  });

  test("after any number of them, at any spacing, the wait is at most the window, and then over", () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 30 }), (steps) => {
        const { gate, clock } = bareGate();
        const { attempts } = partsOf(gate as never).authenticator;
        const address = from("192.0.2.1");
        for (const { failures, attempts: tries, afterMs } of steps) {
          for (let time = 0; time < failures; time++) attempts.count(address);
          // Refused ones change nothing.
          for (let time = 0; time < tries; time++) attempts.waitMs(address);
          const waitMs = attempts.waitMs(address);
          expect(waitMs).toBeLessThanOrEqual(WINDOW_MS);
          // In fact, however bad its neighbourhood, a good credential gets in within a second.
          expect(waitMs).toBeLessThanOrEqual(1_000);
          clock.advance(waitMs);
          if (waitMs > 0) expect(attempts.waitMs(address)).toBe(0);
          expect(attempts.waitMs(from("192.0.2.2"))).toBe(0);
          expect(attempts.waitMs(from(undefined))).toBe(0);
          clock.advance(afterMs);
        }
        clock.advance(WINDOW_MS);
        for (let time = 0; time < 100; time++) expect(attempts.waitMs(address)).toBe(0);
      }),
    );
  });

  test("aren't those that the key server is to blame for", async () => {
    const { gate } = bareGate({ users: { jwksUrl: `http://127.0.0.1:${freePort()}/jwks` } });
    const segment = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const token = `${segment({ alg: "ES256", kid: "a" })}.${segment({ sub: "a" })}.${"A".repeat(86)}`;
    const attempt = async () => {
      const headers = { Authorization: `Bearer ${token}` };
      const request = new Request(`${BARE_ORIGIN}/api/auth/ws-ticket`, { method: "POST", headers });
      return (await gate.fetch(request, { socketAddress: "192.0.2.1" })).status;
    };
    for (let time = 0; time < 200; time++) expect(await attempt()).toBe(503);
  });

  test("without an address don't count", () => {
    const { gate } = bareGate();
    const { attempts } = partsOf(gate as never).authenticator;
    for (let time = 0; time < 10_000; time++) attempts.count(from(undefined));
    expect(attempts.waitMs(from(undefined))).toBe(0);
  });
});

describe("sign-outs", () => {
  async function headersOf({ bearer, clock }: BareGate, jti: string) {
    return bearer("alice", { jti, iat: clock.nowMs() / 1000 });
  }

  test("of a session that has ended don't use up what its user may do", async () => {
    const world = bareGate();
    const { send } = world;
    const signOut = async (headers: HeadersInit, body?: string) =>
      (await send(SIGN_OUT, { method: "POST", headers, ...(body && { body }) })).status;
    const stolen = await headersOf(world, "stolen");
    const everywhere = '{"everywhere":true}';
    const statuses: number[] = [];
    for (let time = 0; time < 30; time++) {
      statuses.push(await signOut(stolen, time % 3 === 2 ? everywhere : undefined));
    }
    expect(statuses.slice(0, 10)).toEqual([204, 204, 401, 204, 204, 401, 204, 204, 401, 204]);
    expect(new Set(statuses.slice(10))).toEqual(new Set([429]));
    for (let time = 0; time < 8; time++) {
      expect(await signOut(await headersOf(world, `other ${time}`))).toBe(204);
    }
    expect(await signOut(await headersOf(world, "mine"), everywhere)).toBe(204);
  });

  test("are so many a day, since each is remembered for a month", async () => {
    const PER_DAY = 200;
    const world = bareGate();
    const { send, clock } = world;
    let sessions = 0;
    const signOut = async () => {
      const headers = await headersOf(world, `session ${sessions++}`);
      return (await send(SIGN_OUT, { method: "POST", headers })).status;
    };
    let done = 0;
    // As many as there may be in a minute, all day.
    for (let minute = 0; minute < 30; minute++) {
      for (let time = 0; time < 10; time++) if ((await signOut()) === 204) done++;
      clock.advance(60_000);
    }
    const grownBack = (30 / (24 * 60)) * PER_DAY;
    expect(done).toBeGreaterThanOrEqual(PER_DAY);
    expect(done).toBeLessThanOrEqual(PER_DAY + grownBack);
    clock.advance(86_400_000 / PER_DAY);
    expect(await signOut()).toBe(204);
  });

  test("of a session that has ended change nothing in the store", async () => {
    const store = memoryTicketStore();
    const revoked: unknown[] = [];
    const world = bareGate({
      store: {
        ...store,
        revoke(revocation) {
          revoked.push(revocation);
          return store.revoke(revocation);
        },
      },
    });
    const headers = await headersOf(world, "one");
    for (let time = 0; time < 5; time++) {
      expect((await world.send(SIGN_OUT, { method: "POST", headers })).status).toBe(204);
    }
    expect(revoked).toHaveLength(1);
  });

  test("end the connections here, and are no success, while the store can't say whether they were made", async () => {
    const store = memoryTicketStore();
    const fails = () => Promise.reject(new Error("Out of reach"));
    const world = bareGate({ store: { ...store, isRevoked: fails, revoke: fails, spend: fails } });
    const { gate, send, clock } = world;
    const ends: number[] = [];
    const expiresAtMs = clock.nowMs() + 3_600_000;
    gate.follow(
      { kind: "user", id: "alice", session: "one", issuedAtMs: clock.nowMs(), expiresAtMs },
      ({ code }) => void ends.push(code),
    );
    const headers = await headersOf(world, "one");
    expect((await send(SIGN_OUT, { method: "POST", headers })).status).toBe(503);
    expect(ends).toEqual([4500]);
  });

  test("end the connections here, and have their response in time, while the store never responds", async () => {
    const never = () => new Promise<never>(() => {});
    const store = { ...memoryTicketStore(), isRevoked: never, revoke: never, spend: never };
    const world = bareGate({ store });
    const { gate, send, clock } = world;
    const ended = Promise.withResolvers<number>();
    const expiresAtMs = clock.nowMs() + 3_600_000;
    gate.follow(
      { kind: "user", id: "alice", session: "one", issuedAtMs: clock.nowMs(), expiresAtMs },
      ({ code }) => ended.resolve(code),
    );
    const headers = await headersOf(world, "one");
    const sent = send(SIGN_OUT, { method: "POST", headers });
    expect((await underClock(clock, sent, { limitMs: DEPENDENCY_DEADLINE_MS })).status).toBe(503);
    expect(await underClock(clock, ended.promise)).toBe(4500);
  });

  test("are counted by a store that can, for all who share it", async () => {
    const acts: unknown[] = [];
    const store: TicketStore = {
      ...memoryTicketStore(),
      async spend(key, limits) {
        acts.push([key, limits.map(({ allowed }) => allowed)]);
        return acts.length > 1 ? 1_500 : 0;
      },
    };
    const world = bareGate({ store });
    const signOut = async (session: string) => {
      const headers = await headersOf(world, session);
      const { status, headers: answered } = await world.send(SIGN_OUT, { method: "POST", headers });
      return [status, answered.get("retry-after")];
    };
    expect(await signOut("one")).toEqual([204, null]);
    expect(await signOut("two")).toEqual([429, "2"]);
    expect(acts).toEqual(Array(2).fill(["sign-out:alice", [10, 200]]));
  });
});
