import { describe, expect, test } from "bun:test";
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

  test("asking costs nothing", () => {
    const { limit } = limitOf(1);
    for (let time = 0; time < 100; time++) expect(limit.waitMs("a")).toBe(0);
    expect(limit.size).toBe(0);
  });

  test("zero switches it off", () => {
    const { limit } = limitOf(0);
    for (let time = 0; time < 1_000; time++) limit.count("a");
    expect([limit.waitMs("a"), limit.size]).toEqual([0, 0]);
  });

  test("the wall clock has no say", () => {
    const { clock, limit } = limitOf(1);
    limit.count("a");
    clock.jumpWall(3_600_000);
    expect(limit.waitMs("a")).toBe(60_000);
    clock.jumpWall(-7_200_000);
    expect(limit.waitMs("a")).toBe(60_000);
  });

  test("forgets keys whose share is whole again", () => {
    const { clock, limit } = limitOf(1);
    for (let key = 0; key < 1_000; key++) limit.count(String(key));
    expect(limit.size).toBe(1_000);
    clock.advance(60_000);
    limit.count("last");
    expect(limit.size).toBe(1);
  });

  test("never remembers more than 100,000 keys, and forgets the quietest first", () => {
    const { limit } = limitOf(1);
    for (let key = 0; key < 99_999; key++) limit.count(String(key));
    limit.count("0");
    for (const key of ["new", "newer"]) limit.count(key);
    expect(limit.size).toBe(100_000);
    expect(limit.waitMs("1")).toBe(0);
    for (const key of ["0", "2", "new", "newer"]) expect(limit.waitMs(key)).toBeGreaterThan(0);
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

  test("one user's limit is nobody else's", async () => {
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

  test("a token that doesn't verify uses up nobody's share", async () => {
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
