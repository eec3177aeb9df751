import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { RedisReply } from "../../src/redis/transport.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { Identity } from "../../src/gate/identity.ts";
import type { TicketRecord, TicketStore } from "../../src/gate/store.ts";
import { DEPENDENCY_DEADLINE_MS as DEADLINE_MS } from "../../src/lib/deadline.ts";
import { type FakeClock, fakeClock, settle, underClock } from "../support/clock.ts";
import { isUserId } from "../../src/wire/ids.ts";
import { describeWith } from "../support/require.ts";
import { newHash, recordOf } from "../support/store.ts";
import { startWire, type Wire, WIRE_NAMES } from "../support/wire.ts";

const TTL_MS = 30_000;

/** A change to a record that changes its identity. */
function identityWith(changes: Record<string, unknown>) {
  return { identity: { ...recordOf("h").identity, ...changes } };
}

async function putNew(store: TicketStore, id = "alice", ttlMs = TTL_MS): Promise<string> {
  const hash = newHash();
  await store.put(hash, recordOf(hash, { id }), ttlMs);
  return hash;
}

/** Text that some store could give back as something else. */
const AWKWARD: readonly (readonly [what: string, text: string])[] = [
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
  ["127 characters of four bytes", "𝕏".repeat(127)],
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

/** What every store promises. Returns what the tests have run against, for further ones. */
function contract(start: () => Promise<Subject>): () => Subject {
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

  test("keeps hashes apart that differ in one character", async () => {
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
    expect(records).toEqual(hashes.map((hash, index) => recordOf(hash, { id: `user-${index}` })));
  });

  test.each(AWKWARD.filter(([, text]) => isUserId(text)))(
    "keeps a user and a session that look like %s",
    async (_, text) => {
      const hash = newHash();
      const record = recordOf(hash, { id: text, session: text });
      await store.put(hash, record, TTL_MS);
      expect(await store.take(hash)).toEqual(record);
    },
  );

  test.each(AWKWARD)("keeps a purpose and claims that look like %s", async (_, text) => {
    const hash = newHash();
    const claims = { text, list: [text, 1, null, true, 1.5, {}], [`of ${text}`]: text };
    const record = { ...recordOf(hash, { claims }), purpose: text };
    await store.put(hash, record, TTL_MS);
    expect(await store.take(hash)).toEqual(record);
  });

  test("keeps the tolerance that a credential was issued with", async () => {
    const hash = newHash();
    const record = recordOf(hash, { toleranceMs: 5_000 });
    await store.put(hash, record, TTL_MS);
    expect(await store.take(hash)).toEqual(record);
  });

  describe("a revocation", () => {
    const AT_MS = Date.parse("2026-06-01T00:00:00Z");
    const until = { atMs: AT_MS, untilMs: AT_MS + 3_600_000 };
    let users = 0;
    /** Nobody else's: revocations stay. */
    const newUser = () => `revoked ${++users} *?[a] ${newHash()}`;

    function ticketOf(id: string, session: string, issuedAtMs = AT_MS): TicketRecord {
      return recordOf(newHash(), { id, session, issuedAtMs });
    }
    const isRevoked = (identity: Partial<Identity>) =>
      store.isRevoked({ ...recordOf("").identity, issuedAtMs: AT_MS, ...identity });
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
      const revoked = [ended, lasting].map((session) => isRevoked({ id: user, session }));
      expect(await Promise.all(revoked)).toEqual([true, false]);
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
      const revoked = records.map(({ identity }) => other.isRevoked(identity));
      expect(await Promise.all(revoked)).toEqual([true, true, false]);
    });

    test("of everything also ends what was issued a moment later by a clock that may be ahead", async () => {
      const user = newUser();
      const records = [AT_MS + 5_000, AT_MS + 5_001].map((issuedAtMs) =>
        recordOf(newHash(), { id: user, session: newHash(), issuedAtMs, toleranceMs: 5_000 }),
      );
      for (const record of records) expect(await put(record)).toBe(true);
      await store.revoke({ kind: "user", id: user, ...until });
      const taken = await Promise.all(records.map(({ hash }) => other.take(hash)));
      expect(taken.map((record) => record !== undefined)).toEqual([false, true]);
      const again = records.map((record) => put({ ...record, hash: newHash() }));
      expect(await Promise.all(again)).toEqual([false, true]);
      const revoked = records.map(({ identity }) => other.isRevoked(identity));
      expect(await Promise.all(revoked)).toEqual([true, false]);
    });

    test("touches no other identity: neither another user nor the visitor of the same id", async () => {
      const id = newUser();
      const others = [ticketOf(`${id}x`, newHash()), ticketOf(id.slice(0, -1), newHash())];
      for (const record of others) await put(record);
      await store.revoke({ kind: "visitor", id, ...until });
      const mine = ticketOf(id, newHash());
      expect(await put(mine)).toBe(true);
      expect(await store.take(mine.hash)).toEqual(mine);
      await store.revoke({ kind: "user", id, ...until });
      for (const record of others) expect(await store.take(record.hash)).toEqual(record);
      const visitor = { kind: "visitor", session: undefined } as const;
      expect(await isRevoked({ ...visitor, id })).toBe(true);
      expect(await isRevoked({ ...visitor, id: `${id}x` })).toBe(false);
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
      fc.asyncProperty(fc.array(step, { maxLength: 40, size: "max" }), async (steps) => {
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
            const record = recordOf(hash, { id: `user-${++puts}` });
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
  return () => subject;
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
    const subject = contract(() => startRedisBehind(name));

    /** Faults get a Redis of their own, and deadlines that pass only with the clock. */
    async function startFaulty() {
      const wire = await startWire(name);
      const clock = fakeClock();
      const store = redisTicketStore(wire.transport({ clock }));
      return { wire, store, clock, [Symbol.asyncDispose]: () => wire[Symbol.asyncDispose]() };
    }

    /** The message of a rejection. `expect(…).rejects` would hold up the loop that has to bring it. */
    function faultOf(work: Promise<unknown>): Promise<string> {
      return work.then(
        () => "none",
        (error: Error) => error.message,
      );
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
      ["a record in a list", JSON.stringify([recordOf("h")])],
      ...(
        [
          ["no hash", { hash: undefined }],
          ["no purpose", { purpose: undefined }],
          ["a purpose that is a number", { purpose: 7 }],
          ["no end", { expiresAtMs: undefined }],
          ["an end that is text", { expiresAtMs: "1800000000000" }],
          ["an endless end", { expiresAtMs: "1e999" }],
          ["no identity", { identity: undefined }],
          ["an identity that is text", { identity: "alice" }],
          ["an identity that is a list", { identity: ["alice"] }],
          ["a visitor", identityWith({ kind: "visitor", id: "A".repeat(22) })],
          ["no kind of identity", identityWith({ kind: undefined })],
          ["no user", identityWith({ id: undefined })],
          ["an empty user", identityWith({ id: "" })],
          ["a user that is a number", identityWith({ id: 7 })],
          ["a user with a line feed", identityWith({ id: "alice\n" })],
          ["a user with a NUL", identityWith({ id: "al\0ce" })],
          ["a user with half a surrogate pair", identityWith({ id: "al\ud800ce" })],
          ["a session that is a number", identityWith({ session: 7 })],
          ["no time of issue", identityWith({ issuedAtMs: undefined })],
          ["a time of issue that is text", identityWith({ issuedAtMs: "0" })],
          ["a tolerance that is text", identityWith({ toleranceMs: "0" })],
          ["no end of the credential", identityWith({ expiresAtMs: undefined })],
          ["an endless credential", identityWith({ expiresAtMs: "1e999" })],
        ] as const
      ).map(([what, changes]): [string, string] => [
        what,
        JSON.stringify({ ...recordOf("h"), ...changes }).replaceAll('"1e999"', "1e999"),
      ]),
    ])("takes no record from %s, and removes it", async (_, value) => {
      const { wire, stores } = subject();
      const redis = (wire as Wire).redis;
      await redis.command("SET", "ws-ticket:h", value);
      expect(await stores[0].take("h")).toBeUndefined();
      expect(await redis.command("EXISTS", "ws-ticket:h")).toBe(0);
      await redis.command("SET", "ws-ticket:h", JSON.stringify(recordOf("h")));
      expect(await stores[0].take("h")).toEqual(recordOf("h"));
    });

    test("rejects where the key holds another type of value", async () => {
      await using faulty = await startFaulty();
      const { wire, store } = faulty;
      await wire.redis.command("RPUSH", "ws-ticket:h", "a");
      await expect(store.take("h")).rejects.toThrow("Redis refused a command: WRONGTYPE");
    });

    test("rejects while Redis is down, and works again by itself", async () => {
      await using faulty = await startFaulty();
      const { wire, store, clock } = faulty;
      await putNew(store);
      await wire.goDown();
      for (const call of [() => putNew(store), () => store.take(newHash())]) {
        const outcome: Promise<unknown> = call();
        expect(await faultOf(underClock(clock, outcome, { limitMs: 100 }))).not.toBe("none");
      }
      await wire.comeBack();
      const hash = await putNew(store);
      expect(await store.take(hash)).toEqual(recordOf(hash));
    });

    test("rejects at its deadline while Redis is frozen, sends nothing twice, and works again by itself", async () => {
      await using faulty = await startFaulty();
      const { wire, store, clock } = faulty;
      const hash = await putNew(store);
      wire.redis.freeze();
      let isSettled = false;
      const taking = store.take(hash).finally(() => {
        isSettled = true;
      });
      taking.catch(() => {});
      while (wire.sent("GETDEL") === 0) await settle(1);
      clock.advance(DEADLINE_MS - 1);
      await settle();
      expect(isSettled).toBe(false);
      clock.advance(1);
      expect(await faultOf(taking)).toBe("No response in time: 1900 ms");
      const putting = underClock(clock, putNew(store), { limitMs: DEADLINE_MS });
      expect(await faultOf(putting)).toBe("No response in time: 1900 ms");
      expect(wire.sent("GETDEL")).toBe(1);
      wire.redis.thaw();
      // What had reached Redis before it froze happens now, and counts as it did then.
      while ((await wire.redis.command("EXISTS", `ws-ticket:${hash}`)) !== 0) await Bun.sleep(1);
      expect(wire.sent("GETDEL")).toBe(1);
      expect(await store.take(hash)).toBeUndefined();
      const next = await putNew(store);
      expect(await store.take(next)).toEqual(recordOf(next));
    });

    test("rejects a take whose reply was lost, sends it once only, and the ticket is spent", async () => {
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

test.each<[string, RedisReply]>([
  ["nothing", null],
  ["another number", 2],
  ["text", "1"],
])("a redis store rejects when Redis says %s where it says 1 or 0", async (_, reply) => {
  const transport = { isOrdered: true, command: async () => reply, async close() {} };
  const store = redisTicketStore(transport);
  await expect(putNew(store)).rejects.toThrow("Redis broke off");
  const revocation = { kind: "user", id: "alice", atMs: 0, untilMs: 1 } as const;
  await expect(store.revoke(revocation)).rejects.toThrow("Redis broke off");
  const identity = { kind: "user", id: "alice", issuedAtMs: 0, expiresAtMs: 1 } as const;
  await expect(store.isRevoked(identity)).rejects.toThrow("Redis broke off");
});
