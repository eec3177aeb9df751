import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { TicketRecord, TicketStore } from "../../src/gate/store.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";
import { describeWith } from "../support/require.ts";
import { startWire, type Wire, WIRE_NAMES } from "../support/wire.ts";

const TTL_MS = 30_000;
/** Short, so that the tests of what doesn't answer are. */
const DEADLINE_MS = 250;

function newHash(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
}

function recordOf(hash: string, user = "alice"): TicketRecord {
  return {
    purpose: "ws",
    hash,
    user,
    session: "session",
    issuedAtMs: 1_700_000_000_000,
    expiresAtMs: 1_800_000_000_000,
    tokenExpiresAtMs: 2 ** 53 - 1,
  };
}

async function putNew(store: TicketStore, user?: string, ttlMs = TTL_MS): Promise<string> {
  const hash = newHash();
  await store.put(hash, recordOf(hash, user), ttlMs);
  return hash;
}

/** Users that some store could give back as something else. */
const AWKWARD_USERS: readonly (readonly [what: string, user: string])[] = [
  ["a number", "123"],
  ["a number that loses digits", "123456789012345678901234567890"],
  ["a number with leading zeros", "007"],
  ["a number in exponent form", "1e999"],
  ["true", "true"],
  ["null", "null"],
  ["a JSON object", '{"user":"mallory"}'],
  ["a JSON array", '["a","b"]'],
  ["a JSON string", '"quoted"'],
  ["the status of Redis", "OK"],
  ["base64", "aGVsbG8="],
  ["white space at both ends", "  alice \t"],
  ["line breaks of the protocol", "a\r\n$3\r\nfoo\r\n"],
  ["a NUL in the middle", "a\0b"],
  ["emoji and combining marks", "👩‍👩‍👧 é Ω 漢字 \u202e"],
  ["an unpaired surrogate", "a\ud800b"],
  ["a property of every object", "__proto__"],
  ["255 characters of four bytes", "𝕏".repeat(255)],
];

interface Subject {
  /** A store, and another one that shares its tickets. */
  readonly stores: readonly [TicketStore, TicketStore];
  /** Where time can be moved. */
  readonly clock?: FakeClock;
  readonly wire?: Wire;
  end(): Promise<void>;
}

async function startMemory(): Promise<Subject> {
  const clock = fakeClock();
  const store = memoryTicketStore({ clock });
  return { stores: [store, store], clock, end: () => store.close() };
}

async function startRedisBehind(name: (typeof WIRE_NAMES)[number]): Promise<Subject> {
  const wire = await startWire(name);
  const store = () => redisTicketStore(wire.transport());
  const stores = [store(), store()] as const;
  return {
    stores,
    wire,
    async end() {
      await Promise.all(stores.map((one) => one.close()));
      await wire[Symbol.asyncDispose]();
    },
  };
}

/** What every store promises. */
function contract(start: () => Promise<Subject>): void {
  let subject: Subject;
  let store: TicketStore;
  let other: TicketStore;
  beforeAll(async () => {
    subject = await start();
    [store, other] = subject.stores;
  });
  afterAll(() => subject.end());

  test("gives a record back as it was put, once", async () => {
    const hash = await putNew(store);
    expect(await store.take(hash)).toEqual(recordOf(hash));
    expect(await store.take(hash)).toBeUndefined();
    expect(await store.take(hash)).toBeUndefined();
  });

  test("has nothing under a hash that was never put", async () => {
    expect(await store.take(newHash())).toBeUndefined();
  });

  test("tells hashes apart that differ in one character", async () => {
    const hash = await putNew(store);
    const near = (hash[0] === "0" ? "1" : "0") + hash.slice(1);
    expect(await store.take(near)).toBeUndefined();
    expect(
      await store.take(hash.toUpperCase() === hash ? near : hash.toUpperCase()),
    ).toBeUndefined();
    expect(await store.take(hash)).toEqual(recordOf(hash));
  });

  test("of 50 takes at once exactly one gets the record, 20 times over", async () => {
    for (let round = 0; round < 20; round++) {
      const hash = await putNew(store);
      const takes = Array.from({ length: 50 }, (_, index) =>
        (index % 2 ? store : other).take(hash),
      );
      const got = (await Promise.all(takes)).filter((record) => record !== undefined);
      expect(got).toEqual([recordOf(hash)]);
    }
  });

  test("takes of 50 tickets at once each get their own", async () => {
    const hashes = await Promise.all(
      Array.from({ length: 50 }, (_, index) => putNew(store, `user-${index}`)),
    );
    const records = await Promise.all(hashes.map((hash) => other.take(hash)));
    expect(records).toEqual(hashes.map((hash, index) => recordOf(hash, `user-${index}`)));
  });

  test.each(AWKWARD_USERS)("keeps a user that is written like %s", async (_, user) => {
    const hash = await putNew(store, user);
    expect(await store.take(hash)).toEqual(recordOf(hash, user));
  });

  describe("a revocation", () => {
    const AT_MS = Date.parse("2026-06-01T00:00:00Z");
    const until = { atMs: AT_MS, untilMs: AT_MS + 3_600_000 };
    let users = 0;
    /** Nobody else's: revocations stay. */
    const newUser = () => `revoked ${++users} *?[a] ${newHash()}`;

    function ticketOf(user: string, session: string, issuedAtMs = AT_MS): TicketRecord {
      return { ...recordOf(newHash(), user), session, issuedAtMs };
    }
    const put = (record: TicketRecord) => store.put(record.hash, record, TTL_MS);

    test("of a session ends its unused tickets and refuses further ones, and no other session's", async () => {
      const user = newUser();
      const [ended, lasting] = [newHash(), newHash()];
      const [first, second] = [ticketOf(user, ended), ticketOf(user, lasting)];
      expect([await put(first), await put(second)]).toEqual([true, true]);
      await other.revoke({ kind: "user", id: user, session: ended, ...until });
      expect(await store.take(first.hash)).toBeUndefined();
      expect(await store.take(second.hash)).toEqual(second);
      const late = ticketOf(user, ended, AT_MS + 1_000);
      expect([await put(late), await put(ticketOf(user, lasting))]).toEqual([false, true]);
      expect(await store.take(late.hash)).toBeUndefined();
      const asked = [ended, lasting].map((session) =>
        store.isRevoked({ kind: "user", id: user, session, issuedAtMs: AT_MS }),
      );
      expect(await Promise.all(asked)).toEqual([true, false]);
    });

    test("of everything ends what was issued up to its moment, and nothing later", async () => {
      const user = newUser();
      const records = [AT_MS - 1, AT_MS, AT_MS + 1].map((issuedAtMs) =>
        ticketOf(user, newHash(), issuedAtMs),
      );
      for (const record of records) expect(await put(record)).toBe(true);
      await store.revoke({ kind: "user", id: user, ...until });
      const taken = await Promise.all(records.map(({ hash }) => other.take(hash)));
      expect(taken.map((record) => record !== undefined)).toEqual([false, false, true]);
      const again = records.map((record) => put({ ...record, hash: newHash() }));
      expect(await Promise.all(again)).toEqual([false, false, true]);
      const asked = records.map((record) => other.isRevoked({ ...record, kind: "user", id: user }));
      expect(await Promise.all(asked)).toEqual([true, true, false]);
    });

    test("touches nobody else: not another user, nor the visitor of the same id", async () => {
      const id = newUser();
      const others = [ticketOf(`${id}x`, newHash()), ticketOf(id.slice(0, -1), newHash())];
      for (const record of others) await put(record);
      await store.revoke({ kind: "visitor", id, ...until });
      const mine = ticketOf(id, newHash());
      expect(await put(mine)).toBe(true);
      expect(await store.take(mine.hash)).toEqual(mine);
      await store.revoke({ kind: "user", id, ...until });
      for (const record of others) expect(await store.take(record.hash)).toEqual(record);
      expect(await store.isRevoked({ kind: "visitor", id, issuedAtMs: AT_MS })).toBe(true);
      expect(await store.isRevoked({ kind: "visitor", id: `${id}x`, issuedAtMs: AT_MS })).toBe(
        false,
      );
    });

    test("a second one adds to the first", async () => {
      const user = newUser();
      const [one, two] = [newHash(), newHash()];
      await store.revoke({ kind: "user", id: user, session: one, ...until });
      await store.revoke({ kind: "user", id: user, session: two, ...until });
      const kept = [one, two].map((session) => put(ticketOf(user, session)));
      expect(await Promise.all(kept)).toEqual([false, false]);
    });

    test("an earlier moment that arrives late takes nothing back", async () => {
      const user = newUser();
      await store.revoke({ kind: "user", id: user, ...until });
      await other.revoke({
        kind: "user",
        id: user,
        atMs: AT_MS - 60_000,
        untilMs: AT_MS + 3_600_000,
      });
      expect(await put(ticketOf(user, newHash()))).toBe(false);
    });

    test("lets no ticket slip through that is put at the same time", async () => {
      for (let round = 0; round < 20; round++) {
        const user = newUser();
        const session = newHash();
        const records = Array.from({ length: 20 }, () => ticketOf(user, session));
        await Promise.all([
          ...records.slice(0, 10).map(put),
          other.revoke({ kind: "user", id: user, session, ...until }),
          ...records.slice(10).map(put),
        ]);
        const taken = await Promise.all(records.map(({ hash }) => store.take(hash)));
        expect(taken.filter((record) => record !== undefined)).toEqual([]);
      }
    });
  });

  test("holds exactly the live tickets, whatever is put and taken in whatever order", async () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("put" as const),
        at: fc.nat(4),
        ttlMs: fc.integer({ min: 10_000, max: 20_000 }),
      }),
      fc.record({ kind: fc.constant("take" as const), at: fc.nat(4) }),
      fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 15_000 }) }),
    );
    const { clock } = subject;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const hashes = Array.from({ length: 5 }, newHash);
        const live = new Map<string, { record: TicketRecord; endsAtMs: number }>();
        let nowMs = 0;
        let puts = 0;
        for (const one of steps) {
          if (one.kind === "wait") {
            if (!clock) continue;
            clock.advance(one.ms);
            nowMs += one.ms;
            continue;
          }
          const hash = hashes[one.at] as string;
          if (one.kind === "put") {
            const record = recordOf(hash, `user-${++puts}`);
            await store.put(hash, record, one.ttlMs);
            live.set(hash, { record, endsAtMs: nowMs + one.ttlMs });
          } else {
            const known = live.get(hash);
            live.delete(hash);
            const expected = known && known.endsAtMs > nowMs ? known.record : undefined;
            expect(await store.take(hash)).toEqual(expected as TicketRecord);
          }
        }
      }),
      { numRuns: clock ? 300 : 30 },
    );
  });
}

describe("memory store", () => {
  contract(startMemory);

  test("ends a ticket exactly at its time", async () => {
    const clock = fakeClock();
    const store = memoryTicketStore({ clock });
    const [early, late] = [await putNew(store), await putNew(store)];
    clock.advance(TTL_MS - 1);
    expect(await store.take(early)).toEqual(recordOf(early));
    clock.advance(1);
    expect(await store.take(late)).toBeUndefined();
  });
});

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`redis store, ${name} transport`, () => {
    contract(() => startRedisBehind(name));

    /** Faults get a Redis of their own. */
    async function startFaulty() {
      const wire = await startWire(name);
      const store = redisTicketStore(wire.transport({ deadlineMs: DEADLINE_MS }));
      return { wire, store, [Symbol.asyncDispose]: () => wire[Symbol.asyncDispose]() };
    }

    async function elapsedMs(work: Promise<unknown>): Promise<number> {
      const startedAtMs = performance.now();
      await expect(work).rejects.toThrow();
      return performance.now() - startedAtMs;
    }

    test("sends one command to put and one to take, the time to live in the same as the value", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      const hash = await putNew(store);
      expect([wire.sent("EVAL"), wire.sent("SET"), wire.sent("PEXPIRE")]).toEqual([1, 0, 0]);
      const ttlMs = Number(await wire.redis.command("PTTL", `ws-ticket:${hash}`));
      expect(ttlMs).toBeGreaterThan(TTL_MS - 5_000);
      expect(ttlMs).toBeLessThanOrEqual(TTL_MS);
      await store.take(hash);
      expect([wire.sent("GETDEL"), wire.sent("GET"), wire.sent("DEL")]).toEqual([1, 0, 0]);
      expect(await wire.redis.ticketKeys()).toEqual([]);
    });

    test("has nothing any more once Redis let the ticket expire", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      const hash = await putNew(store, "alice", 20);
      while ((await wire.redis.command("PTTL", `ws-ticket:${hash}`)) !== -2) await Bun.sleep(1);
      expect(await store.take(hash)).toBeUndefined();
    });

    test.each([
      ["text that is no JSON", "alice"],
      ["a number", "1"],
      ["null", "null"],
      ["an array", "[]"],
      ["an empty object", "{}"],
      ["nothing", ""],
      [
        "another purpose",
        '{"purpose":"reset","hash":"h","user":"a","expiresAtMs":9,"tokenExpiresAtMs":9}',
      ],
      [
        "a user that is a number",
        '{"purpose":"ws","hash":"h","user":7,"expiresAtMs":9,"tokenExpiresAtMs":9}',
      ],
      ["no user", '{"purpose":"ws","hash":"h","user":"","expiresAtMs":9,"tokenExpiresAtMs":9}'],
      ["no end", '{"purpose":"ws","hash":"h","user":"a","tokenExpiresAtMs":9}'],
      [
        "an endless end",
        '{"purpose":"ws","hash":"h","user":"a","expiresAtMs":1e999,"tokenExpiresAtMs":9}',
      ],
    ])("takes no record from %s, and removes it", async (_, value) => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      await wire.redis.command("SET", "ws-ticket:h", value);
      expect(await store.take("h")).toBeUndefined();
      expect(await wire.redis.command("EXISTS", "ws-ticket:h")).toBe(0);
    });

    test("rejects where the key holds another type of value", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      await wire.redis.command("RPUSH", "ws-ticket:h", "a");
      await expect(store.take("h")).rejects.toThrow("Redis refused a command: WRONGTYPE");
    });

    test("rejects while nobody listens, and works again by itself", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      await putNew(store);
      await wire.goDown();
      expect(await elapsedMs(putNew(store))).toBeLessThan(DEADLINE_MS + 200);
      expect(await elapsedMs(store.take(newHash()))).toBeLessThan(DEADLINE_MS + 200);
      await wire.comeBack();
      const hash = await putNew(store);
      expect(await store.take(hash)).toEqual(recordOf(hash));
    });

    test("rejects in time while Redis is frozen, sends nothing twice, and works again by itself", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      const hash = await putNew(store);
      wire.redis.freeze();
      expect(await elapsedMs(store.take(hash))).toBeLessThan(DEADLINE_MS + 200);
      expect(await elapsedMs(putNew(store))).toBeLessThan(DEADLINE_MS + 200);
      expect(wire.sent("GETDEL")).toBe(1);
      wire.redis.thaw();
      // What had reached Redis before it froze happens now, and counts as it did then.
      while ((await wire.redis.command("EXISTS", `ws-ticket:${hash}`)) !== 0) await Bun.sleep(1);
      expect(wire.sent("GETDEL")).toBe(1);
      expect(await store.take(hash)).toBeUndefined();
      const next = await putNew(store);
      expect(await store.take(next)).toEqual(recordOf(next));
    });

    test("rejects a take whose reply was lost, asks once only, and the ticket is spent", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      const hash = await putNew(store);
      wire.loseReplies();
      await expect(store.take(hash)).rejects.toThrow();
      expect(wire.sent("GETDEL")).toBe(1);
      expect(await wire.redis.command("EXISTS", `ws-ticket:${hash}`)).toBe(0);
      wire.heal();
      expect(await store.take(hash)).toBeUndefined();
      expect(wire.sent("GETDEL")).toBe(2);
    });

    test("closes once, twice, and before its first use", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      await putNew(store);
      await store.close();
      await store.close();
      await redisTicketStore(wire.transport()).close();
    });
  });
}

describeWith("redis-server")("redis store, native transport", () => {
  test("a closed store takes no command any more, and holds no connection", async () => {
    await using wire = await startWire("native");
    const store = redisTicketStore(wire.transport());
    const hash = await putNew(store);
    await store.close();
    await expect(store.take(hash)).rejects.toThrow("Redis transport is closed");
    const isGone = async () =>
      String(await wire.redis.command("CLIENT", "LIST"))
        .trim()
        .split("\n").length === 1;
    while (!(await isGone())) await Bun.sleep(1);
    expect(wire.sent("GETDEL")).toBe(0);
  });
});
