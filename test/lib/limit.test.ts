import { describe, expect, spyOn, test } from "bun:test";
import fc from "fast-check";
import { createRateLimit } from "../../src/lib/limit.ts";
import { fakeClock } from "../support/clock.ts";
import { startServer } from "../support/server.ts";

function limitOf(allowed: number, clock = fakeClock()) {
  return { clock, limit: createRateLimit<string>({ allowed, windowMs: 60_000, clock }) };
}

describe("createRateLimit", () => {
  test("allows so many at once, then one per interval", () => {
    const { clock, limit } = limitOf(3);
    for (const _ of [1, 2, 3]) {
      expect(limit.waitMs("a")).toBe(0);
      limit.count("a");
    }
    expect(limit.waitMs("a")).toBe(20_000);
    clock.advance(19_999);
    expect(limit.waitMs("a")).toBe(1);
    clock.advance(1);
    expect(limit.waitMs("a")).toBe(0);
    limit.count("a");
    expect(limit.waitMs("a")).toBe(20_000);
    clock.advance(60_000);
    for (const _ of [1, 2, 3]) limit.count("a");
    expect(limit.waitMs("a")).toBe(20_000);
  });

  test("counts each key for itself", () => {
    const { limit } = limitOf(1);
    limit.count("a");
    expect([limit.waitMs("a") > 0, limit.waitMs("b")]).toEqual([true, 0]);
  });

  test("looking costs nothing", () => {
    const { limit } = limitOf(1);
    for (let time = 0; time < 100; time++) expect(limit.waitMs("a")).toBe(0);
    expect(limit.size).toBe(0);
  });

  test("is known to have nothing to count only once nobody has to wait", () => {
    const { limit, clock } = limitOf(1);
    clock.advance(59_900);
    limit.count("a");
    clock.advance(59_999);
    expect([limit.waitMs("a"), limit.size]).toEqual([1, 1]);
    clock.advance(60_000);
    expect([limit.waitMs("a"), limit.size]).toEqual([0, 0]);
  });

  test("zero switches it off", () => {
    const { limit } = limitOf(0);
    for (let time = 0; time < 1_000; time++) limit.count("a");
    expect([limit.waitMs("a"), limit.size]).toEqual([0, 0]);
  });

  test("doesn't depend on the wall clock", () => {
    const { clock, limit } = limitOf(1);
    limit.count("a");
    clock.jumpWall(3_600_000);
    expect(limit.waitMs("a")).toBe(60_000);
    clock.jumpWall(-7_200_000);
    expect(limit.waitMs("a")).toBe(60_000);
  });

  test("forgets keys whose share is whole again, two windows later at most", () => {
    const { clock, limit } = limitOf(1);
    for (let key = 0; key < 1_000; key++) limit.count(String(key));
    expect(limit.size).toBe(1_000);
    clock.advance(120_000);
    expect(limit.size).toBe(0);
    for (let window = 0; window < 10; window++) {
      for (let key = 0; key < 100; key++) limit.count(`${window} ${key}`);
      expect(limit.size).toBeLessThanOrEqual(200);
      clock.advance(60_000);
    }
  });

  test("never remembers more than 100,000 keys, and forgets those first that were quiet for longest", () => {
    const { limit } = limitOf(1);
    for (let key = 0; key < 250_000; key++) {
      limit.count(String(key));
      if (key % 40_000 === 0) limit.count("busy");
      if (key % 10_000 === 0) {
        expect(limit.size).toBeLessThanOrEqual(100_000);
        expect(limit.waitMs("busy")).toBeGreaterThan(0);
      }
    }
    let remembered = 0;
    for (let key = 200_000; key < 250_000; key++) {
      if (limit.waitMs(String(key)) > 0) remembered++;
    }
    expect(remembered).toBe(50_000);
    expect(limit.waitMs("0")).toBe(0);
    expect(limit.size).toBeGreaterThanOrEqual(50_000);
  });

  test("walks through no keys and deletes none, so that an act costs the same however many there are", () => {
    const { clock } = limitOf(1);
    const limit = createRateLimit<string>({ allowed: 2, windowMs: 60_000, clock, maxKeys: 100 });
    const walks = (["delete", "entries", "forEach", "keys", "values"] as const).map((method) =>
      spyOn(Map.prototype, method),
    );
    const iterator = spyOn(Map.prototype, Symbol.iterator as never);
    for (let key = 0; key < 10_000; key++) {
      limit.take(String(key));
      limit.count(String(key % 7));
      if (key % 500 === 0) clock.advance(30_000);
    }
    const calls = [...walks, iterator].map((spy) => spy.mock.calls.length);
    for (const spy of [...walks, iterator]) spy.mockRestore();
    expect(calls).toEqual([0, 0, 0, 0, 0, 0]);
    expect(limit.size).toBeLessThanOrEqual(100);
  });

  test("is a bucket of so many drops that fills evenly", () => {
    const step = fc.record({
      key: fc.constantFrom("a", "b", "c"),
      afterMs: fc.oneof(fc.integer({ min: 0, max: 5_000 }), fc.integer({ min: 0, max: 200_000 })),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3, 10, 60),
        fc.array(step, { maxLength: 200 }),
        (allowed, steps) => {
          const { clock, limit } = limitOf(allowed);
          const dropMs = 60_000 / allowed;
          /** Per key: what is in the bucket, in the milliseconds that it takes to fill. */
          const buckets: Record<string, number> = { a: 60_000, b: 60_000, c: 60_000 };
          for (const { key, afterMs } of steps) {
            clock.advance(afterMs);
            for (const one of Object.keys(buckets)) {
              buckets[one] = Math.min(60_000, (buckets[one] as number) + afterMs);
            }
            const level = buckets[key] as number;
            expect(limit.waitMs(key)).toBe(Math.max(0, dropMs - level));
            if (level < dropMs) continue;
            limit.count(key);
            buckets[key] = level - dropMs;
          }
        },
      ),
    );
  });

  const anyLimit = fc.record({
    allowed: fc.constantFrom(1, 2, 3, 7, 10, 60, 120),
    windowMs: fc.constantFrom(1_000, 60_000),
  });
  const anyAct = fc.record({
    key: fc.constantFrom("a", "b", "c"),
    times: fc.integer({ min: 1, max: 200 }),
    cost: fc.integer({ min: 1, max: 5 }),
    /** Part of the window that passes after it. */
    after: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 3, noNaN: true })),
  });

  test("after any number of acts at any spacing the wait is one interval at most, and then over", () => {
    fc.assert(
      fc.property(anyLimit, fc.array(anyAct, { maxLength: 50 }), ({ allowed, windowMs }, acts) => {
        const clock = fakeClock();
        const limit = createRateLimit<string>({ allowed, windowMs, clock });
        for (const { key, times, cost, after } of acts) {
          for (let time = 0; time < times; time++) limit.count(key, cost);
          const waitMs = limit.waitMs(key);
          expect(waitMs).toBeGreaterThanOrEqual(0);
          expect(waitMs).toBeLessThanOrEqual(windowMs / allowed + 1e-3);
          clock.advance(waitMs);
          expect(limit.waitMs(key)).toBe(0);
          clock.advance(after * windowMs);
        }
      }),
    );
  });

  test("refused attempts don't prolong the wait", () => {
    fc.assert(
      fc.property(anyLimit, fc.array(anyAct, { maxLength: 50 }), ({ allowed, windowMs }, acts) => {
        const clock = fakeClock();
        const patient = createRateLimit<string>({ allowed, windowMs, clock });
        const eager = createRateLimit<string>({ allowed, windowMs, clock });
        for (const { key, times, cost, after } of acts) {
          expect(eager.take(key, cost)).toBe(patient.take(key, cost));
          const waitMs = patient.waitMs(key, cost);
          for (let time = 0; waitMs > 0 && time < times % 5; time++) {
            expect(eager.take(key, cost)).toBe(waitMs);
          }
          clock.advance((after * windowMs) / allowed);
        }
      }),
    );
  });

  test("nothing is forgotten that still makes its key wait", () => {
    fc.assert(
      fc.property(anyLimit, fc.array(anyAct, { maxLength: 50 }), ({ allowed, windowMs }, acts) => {
        const clock = fakeClock();
        const limit = createRateLimit<string>({ allowed, windowMs, clock });
        /** Per key: when its share is whole again. Never forgotten. */
        const wholeAtMs = new Map<string, number>();
        for (const { key, times, cost, after } of acts) {
          const nowMs = clock.monotonicMs();
          for (let time = 0; time < times; time++) {
            limit.count(key, cost);
            const nextMs = Math.max(wholeAtMs.get(key) ?? 0, nowMs) + (cost * windowMs) / allowed;
            wholeAtMs.set(key, Math.min(nextMs, nowMs + windowMs));
          }
          clock.advance(after * windowMs);
          for (const [one, wholeMs] of wholeAtMs) {
            const leftMs = wholeMs - clock.monotonicMs() + windowMs / allowed - windowMs;
            const isOver = leftMs <= 1e-6;
            if (isOver) expect(limit.waitMs(one)).toBe(0);
            else expect(limit.waitMs(one)).toBeCloseTo(leftMs, 3);
          }
        }
      }),
    );
  });

  test("an act waits until its whole cost is left; one that costs more than a share takes all of it", () => {
    const { clock, limit } = limitOf(10);
    expect(limit.take("a", 9)).toBe(0);
    expect([limit.waitMs("a"), limit.take("a", 2)]).toEqual([0, 6_000]);
    clock.advance(5_999);
    expect(limit.take("a", 2)).toBe(1);
    clock.advance(1);
    expect(limit.take("a", 2)).toBe(0);
    expect(limit.take("a", 1_000)).toBe(60_000);
    clock.advance(60_000);
    expect(limit.take("a", 1_000)).toBe(0);
    expect(limit.take("a")).toBe(6_000);
  });

  test("whatever acts cost, no more is taken than a share and what grows back", () => {
    fc.assert(
      fc.property(anyLimit, fc.array(anyAct, { maxLength: 50 }), ({ allowed, windowMs }, acts) => {
        const clock = fakeClock();
        const limit = createRateLimit<string>({ allowed, windowMs, clock });
        const startMs = clock.monotonicMs();
        const taken = new Map<string, number>();
        for (const { key, times, cost, after } of acts) {
          for (let time = 0; time < times; time++) {
            if (limit.take(key, cost) > 0) continue;
            taken.set(key, (taken.get(key) ?? 0) + Math.min(cost, allowed));
          }
          clock.advance((after * windowMs) / allowed);
          const grownBack = ((clock.monotonicMs() - startMs) / windowMs) * allowed;
          expect(taken.get(key) ?? 0).toBeLessThanOrEqual(allowed + grownBack + 1e-3);
        }
      }),
    );
  });

  describe("with debts", () => {
    function debtsOf(allowed: number) {
      const clock = fakeClock();
      const debtMs = 60_000;
      return {
        clock,
        limit: createRateLimit<string>({ allowed, windowMs: 60_000, clock, debtMs }),
      };
    }

    test("what was counted beyond a share is made up for, and without them it isn't", () => {
      const { clock, limit } = debtsOf(10);
      limit.count("a", 15);
      expect(limit.waitMs("a")).toBe(36_000);
      clock.advance(36_000);
      expect(limit.take("a")).toBe(0);
      const forgiving = limitOf(10).limit;
      forgiving.count("a", 15);
      expect(forgiving.waitMs("a")).toBe(6_000);
    });

    test("no more than the debt is owed, and no wait is longer than the window or the debt", () => {
      const { clock, limit } = debtsOf(10);
      for (let time = 0; time < 1_000; time++) limit.count("a", 5);
      expect(limit.waitMs("a", 5)).toBe(60_000);
      clock.advance(60_000);
      expect([limit.waitMs("a"), limit.waitMs("a", 5)]).toEqual([6_000, 30_000]);
      clock.advance(30_000);
      expect(limit.take("a", 5)).toBe(0);
    });

    test("a debt is remembered until it is paid, and then forgotten", () => {
      const { clock, limit } = debtsOf(10);
      // Late in a generation, so that the next one begins while it is owed.
      limit.count("other");
      clock.advance(119_000);
      limit.count("a", 20);
      clock.advance(2_000);
      limit.count("other");
      clock.advance(57_000);
      expect(limit.waitMs("a")).toBe(7_000);
      clock.advance(61_000);
      expect(limit.take("a", 10)).toBe(0);
      clock.advance(240_000);
      expect(limit.size).toBe(0);
    });

    test("two processes that learn of each other's acts late allow one share together, and a little at once", () => {
      const one = debtsOf(100);
      const two = createRateLimit<string>({
        ...{ allowed: 100, windowMs: 60_000, clock: one.clock, debtMs: 60_000 },
      });
      let taken = 0;
      for (let second = 0; second < 600; second++) {
        const acts = [one.limit, two].map((limit) => {
          let own = 0;
          while (own < 5 && limit.take("a") === 0) own++;
          return own;
        });
        taken += (acts[0] ?? 0) + (acts[1] ?? 0);
        one.limit.count("a", acts[1]);
        two.count("a", acts[0]);
        one.clock.advance(1_000);
      }
      expect(taken).toBeLessThanOrEqual(1_100 + 10);
      expect(taken).toBeGreaterThanOrEqual(1_090);
    });
  });
});

describe("tickets per minute", () => {
  test("the next one waits as long as Retry-After says, and not longer", async () => {
    await using server = startServer({ ticketsPerMinute: 3 });
    const token = await server.token("alice");
    for (const _ of [1, 2, 3]) expect((await server.mint(token)).status).toBe(200);
    const refused = await server.mint(token);
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ code: "too_many_requests" });
    expect(refused.headers.get("retry-after")).toBe("20");
    server.clock.advance(19_999);
    const still = await server.mint(token);
    expect([still.status, still.headers.get("retry-after")]).toEqual([429, "1"]);
    server.clock.advance(1);
    expect((await server.mint(token)).status).toBe(200);
    expect((await server.mint(token)).status).toBe(429);
  });

  test("one user's limit is no other's", async () => {
    await using server = startServer({ ticketsPerMinute: 1 });
    const [alice, bob] = [await server.token("alice"), await server.token("bob")];
    expect((await server.mint(alice)).status).toBe(200);
    expect((await server.mint(alice)).status).toBe(429);
    expect((await server.mint(bob)).status).toBe(200);
  });

  test("a new token is no new share", async () => {
    await using server = startServer({ ticketsPerMinute: 1 });
    expect((await server.mint(await server.token("alice"))).status).toBe(200);
    const other = await server.token("alice", { ttlMs: 60_000, claims: { jti: "other" } });
    expect((await server.mint(other)).status).toBe(429);
  });

  test("a token that doesn't verify uses up no share", async () => {
    await using server = startServer({ ticketsPerMinute: 1 });
    const expired = await server.token("alice", { ttlMs: -60_000 });
    expect((await server.mint(expired)).status).toBe(401);
    expect((await server.mint(await server.token("alice"))).status).toBe(200);
  });

  test("none when it is zero", async () => {
    await using server = startServer({ ticketsPerMinute: 0 });
    const token = await server.token("alice");
    const answers = await Promise.all(Array.from({ length: 100 }, () => server.mint(token)));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
  });
});
