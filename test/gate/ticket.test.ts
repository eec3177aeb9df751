import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createSigner } from "../../src/gate/hmac.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketRecord, TicketStore } from "../../src/gate/store.ts";
import { createTickets, isTicket, MARK_PURPOSE } from "../../src/gate/ticket.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { sha256Hex, toBase64url, utf8 } from "../../src/lib/encoding.ts";
import { createRateLimit } from "../../src/lib/limit.ts";
import { createLog } from "../../src/lib/log.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { codeOf, startWatched } from "../support/gate.ts";
import { lastingStore, watchStore } from "../support/store.ts";

/** Issues and redeems over a store that records its calls. */
function world(
  options: {
    store?: TicketStore;
    ttlMs?: number;
    perMinute?: number;
    secret?: string;
    randomBytes?: (length: number) => Uint8Array;
  } = {},
) {
  const clock = fakeClock();
  const logLines: string[] = [];
  const store = watchStore(options.store ?? memoryTicketStore({ clock }));
  const {
    perMinute = 0,
    randomBytes = (length) => crypto.getRandomValues(new Uint8Array(length)),
  } = options;
  const { issue, redeem, isOwn } = createTickets({
    store,
    ttlMs: options.ttlMs ?? 30_000,
    limit: createRateLimit({ allowed: perMinute, windowMs: 60_000, clock }),
    clock,
    signer: createSigner({ secret: utf8(options.secret ?? "x".repeat(32)) }, MARK_PURPOSE),
    log: createLog({ level: "debug", clock, write: (line) => void logLines.push(line) }),
    randomBytes,
  });
  return {
    clock,
    store,
    logLines,
    redeem,
    isOwn,
    issue({ lifeMs = 3_600_000, id = "alice" } = {}) {
      const issuedAtMs = clock.nowMs();
      const expiresAtMs = issuedAtMs + lifeMs;
      return issue({ kind: "user", id, session: "session", issuedAtMs, expiresAtMs });
    },
  };
}
type World = ReturnType<typeof world>;

/** Lines of the log with this event. */
function logged({ logLines }: World, name: string): unknown[] {
  return logLines.map((line) => JSON.parse(line)).filter(({ event }) => event === name);
}

/** How the log names a ticket. */
async function tagOf(ticket: string): Promise<string> {
  return (await sha256Hex(ticket)).slice(0, 6);
}

/** A fresh ticket; fails when there is none. */
async function fresh(at: World, options?: Parameters<World["issue"]>[0]): Promise<string> {
  const issued = await at.issue(options);
  if (!issued.ok) throw new Error(`No ticket: ${issued.code}`);
  return issued.ticket;
}

async function isPending(work: Promise<unknown>): Promise<boolean> {
  let isSettled = false;
  void work.then(() => {
    isSettled = true;
  });
  await settle();
  return !isSettled;
}

const REFUSED = { ok: false, code: "ticket_refused" } as const;

describe("isTicket", () => {
  test("is true for 32 bytes in base64url, and for no other spelling of them", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        const ticket = toBase64url(bytes);
        expect(isTicket(ticket)).toBe(true);
        const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        const at = alphabet.indexOf(ticket.at(-1) as string);
        for (const spare of [1, 2, 3]) {
          expect(isTicket(ticket.slice(0, -1) + alphabet[at + spare])).toBe(false);
        }
      }),
    );
  });

  test("is false for bytes of any other number", () => {
    for (const length of [0, 1, 16, 31, 33, 64]) {
      expect([length, isTicket(toBase64url(new Uint8Array(length)))]).toEqual([length, false]);
    }
  });

  const ticket = toBase64url(new Uint8Array(32).fill(0xff));
  test.each([
    ...["", "null", "undefined", "0", "true", "NaN", "[object Object]", "*", "../x"],
    ...[`${ticket}=`, ` ${ticket}`, `${ticket} `, `${ticket}\n`, `\n${ticket}`, `${ticket}\0`],
    ...[ticket.replace("_", "/"), ticket.replace("_", "+"), ticket.replace("_", "＿")],
    ...[ticket.replace("_", "."), ticket.replace("_", "%"), ticket.replace("_", "é")],
    ...[`ws-ticket:${ticket}`, `${ticket}${ticket}`, ticket.slice(1), "a".repeat(15_000)],
    "00000000-0000-4000-8000-000000000000",
  ])("is false for %p", (value) => {
    expect(isTicket(value)).toBe(false);
  });
});

describe("issuing a ticket", () => {
  test("stores the identity under the ticket's hash, and the ticket nowhere", async () => {
    const at = world();
    const ticket = await fresh(at);
    const hash = await sha256Hex(ticket);
    const nowMs = at.clock.nowMs();
    expect(at.store.puts).toMatchObject([
      {
        hash,
        ttlMs: 30_000,
        record: {
          purpose: "socket",
          hash,
          expiresAtMs: nowMs + 30_000,
          identity: { kind: "user", id: "alice", expiresAtMs: nowMs + 3_600_000 },
        },
      },
    ]);
    expect(JSON.stringify(at.store.puts) + at.logLines.join("")).not.toContain(ticket);
    expect(at.logLines.join("")).not.toContain(hash);
  });

  const lives: [lifeMs: number, ttlMs: number, expiresIn: number | undefined][] = [
    [3_600_000, 30_000, 30],
    [30_000, 30_000, 30],
    [29_999, 30_000, 29],
    [10_500, 30_000, 10],
    [1_000, 30_000, 1],
    [999, 30_000, undefined],
    [0, 30_000, undefined],
    [-4_000, 30_000, undefined],
    [3_600_000, 300_000, 300],
    [120_000, 300_000, 120],
    [3_600_000, 1_000, 1],
  ];
  test.each(lives)("a credential of %d ms and a limit of %d ms make %p s", async (...life) => {
    const [lifeMs, ttlMs, expiresIn] = life;
    const at = world({ ttlMs });
    const issued = await at.issue({ lifeMs });
    if (expiresIn === undefined) {
      expect(issued).toEqual({ ok: false, code: "token_invalid", fault: "expired" });
      expect(at.store.puts).toEqual([]);
    } else {
      expect(issued).toMatchObject({ ok: true, expiresInSeconds: expiresIn });
      expect(at.store.puts[0]?.ttlMs).toBe(expiresIn * 1_000);
    }
  });

  test("never makes the same ticket twice, nor uses a key a second time", async () => {
    const at = world();
    const tickets = await Promise.all(Array.from({ length: 10_000 }, () => fresh(at)));
    expect(new Set(tickets).size).toBe(10_000);
    expect(tickets.every(isTicket)).toBe(true);
    expect(new Set(at.store.puts.map(({ hash }) => hash)).size).toBe(10_000);
  });

  test("takes 24 bytes from the given source of randomness, and marks them", async () => {
    const lengths: number[] = [];
    const randomBytes = (length: number) => {
      lengths.push(length);
      return new Uint8Array(length).fill(7);
    };
    const issued = await world({ randomBytes }).issue();
    const ticket = issued.ok ? issued.ticket : "";
    expect(ticket).toStartWith(toBase64url(new Uint8Array(24).fill(7)));
    expect(isTicket(ticket)).toBe(true);
    expect(lengths).toEqual([24]);
  });

  test("is store_unavailable where the store fails", async () => {
    const at = world({
      store: { ...lastingStore(), put: () => Promise.reject(new Error("Full")) },
    });
    expect(await at.issue()).toEqual({ ok: false, code: "store_unavailable" });
    expect(at.store.puts).toHaveLength(1);
    const ticketTag = at.store.puts[0]?.hash.slice(0, 6);
    expect(logged(at, "store_failed")).toMatchObject([{ code: "Error", ticketTag }]);
  });

  test("fails at the deadline of a store that doesn't respond", async () => {
    const at = world({ store: { ...lastingStore(), put: () => new Promise(() => {}) } });
    const issuing = at.issue();
    while (at.store.puts.length === 0) await settle();
    at.clock.advance(DEPENDENCY_DEADLINE_MS - 1);
    expect(await isPending(issuing)).toBe(true);
    at.clock.advance(1);
    expect(await issuing).toEqual({ ok: false, code: "store_unavailable" });
    expect(at.store.puts).toHaveLength(1);
    expect(at.clock.delays).toBe(0);
  });

  test("is token_invalid for a credential that is revoked in the store", async () => {
    const at = world({ store: { ...lastingStore(), put: async () => false } });
    expect(await at.issue()).toEqual({ ok: false, code: "token_invalid", fault: "revoked" });
    expect(at.logLines.join("")).not.toContain("ticket_issued");
  });

  test("has a limit per user, which refusals don't count towards", async () => {
    const at = world({ perMinute: 2 });
    for (let time = 0; time < 5; time++) await at.issue({ lifeMs: 999 });
    await fresh(at);
    await fresh(at);
    const refused = { code: "too_many_requests", headers: { "Retry-After": "30" } };
    expect(await at.issue()).toMatchObject(refused);
    expect(await at.issue({ id: "bob" })).toMatchObject({ ok: true });
    at.clock.advance(30_000);
    expect(await at.issue()).toMatchObject({ ok: true });
    expect(await at.issue()).toMatchObject(refused);
  });
});

describe("redeeming a ticket", () => {
  test("returns the user, once", async () => {
    const at = world();
    const ticket = await fresh(at);
    expect(await at.redeem(ticket)).toMatchObject({ ok: true, identity: { id: "alice" } });
    expect(await at.redeem(ticket)).toEqual(REFUSED);
    expect(logged(at, "ticket_refused")).toMatchObject([{ ticketTag: await tagOf(ticket) }]);
  });

  test("of 50 redemptions at once one succeeds", async () => {
    const at = world();
    const ticket = await fresh(at);
    const all = await Promise.all(Array.from({ length: 50 }, () => at.redeem(ticket)));
    expect(all.filter(({ ok }) => ok)).toHaveLength(1);
  });

  const stores: [name: string, store: (() => TicketStore) | undefined][] = [
    ["the memory store", undefined],
    ["a store that keeps records too long", lastingStore],
  ];
  test.each(stores)("lasts until the last millisecond of its life in %s", async (_, store) => {
    for (const [ageMs, ok] of [
      [0, true],
      [29_999, true],
      [30_000, false],
      [30_001, false],
    ] as const) {
      const at = world(store && { store: store() });
      const ticket = await fresh(at);
      at.clock.advance(ageMs);
      expect([ageMs, (await at.redeem(ticket)).ok]).toEqual([ageMs, ok]);
    }
  });

  test("a refused record is gone all the same", async () => {
    const at = world({ store: lastingStore() });
    const ticket = await fresh(at);
    at.clock.advance(30_000);
    expect(await at.redeem(ticket)).toEqual(REFUSED);
    at.clock.jumpWall(-30_000);
    expect(await at.redeem(ticket)).toEqual(REFUSED);
  });

  test("a wall clock that is set forward ends it, one that is set back doesn't prolong it", async () => {
    const at = world();
    const [one, two] = [await fresh(at), await fresh(at)];
    at.clock.jumpWall(30_000);
    expect(await at.redeem(one)).toEqual(REFUSED);
    at.clock.jumpWall(-3_600_000);
    at.clock.advance(30_000);
    expect(await at.redeem(two)).toEqual(REFUSED);
  });

  test("the end of the credential is the end of the identity", async () => {
    const at = world();
    const expiresAtMs = at.clock.nowMs() + 12_345;
    const ticket = await fresh(at, { lifeMs: 12_345 });
    at.clock.advance(11_999);
    expect(await at.redeem(ticket)).toMatchObject({ identity: { expiresAtMs } });
    const late = await fresh(at, { lifeMs: 12_345 });
    at.clock.advance(12_000);
    expect(await at.redeem(late)).toEqual(REFUSED);
  });

  test("neighbours, prefixes and the stored key of a good ticket are none", async () => {
    const at = world();
    const ticket = await fresh(at);
    const guesses = Array.from(ticket, (char, index) => {
      const other = char === "A" ? "Q" : "A";
      return ticket.slice(0, index) + other + ticket.slice(index + 1);
    });
    const prefixes = [1, 10, 30, 42].map((length) => ticket.slice(0, length).padEnd(43, "A"));
    const swapped = ticket.replace(/[a-zA-Z]/g, (letter) =>
      letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(),
    );
    const stored = at.store.puts[0]?.hash ?? "";
    for (const guess of [...guesses, ...prefixes, swapped, stored, stored.slice(0, 43)]) {
      if (guess !== ticket) expect(await at.redeem(guess)).toEqual(REFUSED);
    }
    expect(await at.redeem(ticket)).toMatchObject({ ok: true });
  });

  const edited = (changes: Record<string, unknown>) => (record: TicketRecord) => ({
    ...record,
    identity: { ...record.identity, ...changes },
  });
  const edits: [name: string, edit: (record: TicketRecord) => unknown][] = [
    ["nothing", () => undefined],
    ["null", () => null],
    ["a string", () => "alice"],
    ["a record as text", (record) => JSON.stringify(record)],
    ["a number", () => 1],
    ["true", () => true],
    ["an array", (record) => [record]],
    ["an empty object", () => ({})],
    ["a record of somebody else's ticket", (record) => ({ ...record, hash: "0".repeat(64) })],
    ["a record with no hash", ({ hash: _, ...record }) => record],
    ["a record for something else", (record) => ({ ...record, purpose: "session" })],
    ["a record for nothing in particular", ({ purpose: _, ...record }) => record],
    ["a record without an identity", ({ identity: _, ...record }) => record],
    ["an identity that is text", (record) => ({ ...record, identity: "alice" })],
    ["an identity that is a list", (record) => ({ ...record, identity: [record.identity] })],
    ["a visitor", edited({ kind: "visitor", id: "A".repeat(22) })],
    ["no user", edited({ id: undefined })],
    ["an empty user", edited({ id: "" })],
    ["a user that is a number", edited({ id: 1 })],
    ["a user that is a list", edited({ id: ["alice"] })],
    ["a user with a line feed", edited({ id: "alice\n" })],
    ["a session that is a number", edited({ session: 1 })],
    ["no time of issue", edited({ issuedAtMs: undefined })],
    ["a tolerance that is text", edited({ toleranceMs: "0" })],
    ["no end", ({ expiresAtMs: _, ...record }) => record],
    ["an end that is text", (record) => ({ ...record, expiresAtMs: "99999999999999" })],
    ["an end that is NaN", (record) => ({ ...record, expiresAtMs: Number.NaN })],
    ["no end at all, ever", (record) => ({ ...record, expiresAtMs: Number.POSITIVE_INFINITY })],
    ["an end in the past", (record) => ({ ...record, expiresAtMs: 0 })],
    ["no end of the credential", edited({ expiresAtMs: undefined })],
    ["an end of the credential that is null", edited({ expiresAtMs: null })],
  ];
  test.each(edits)("is refused where the store returns %s", async (_, edit) => {
    const store = lastingStore();
    const at = world({
      store: {
        ...store,
        take: async (hash) => edit((await store.take(hash)) as TicketRecord) as TicketRecord,
      },
    });
    expect(await at.redeem(await fresh(at))).toEqual(REFUSED);
  });

  test("is store_unavailable where the store fails, and isn't repeated", async () => {
    const at = world({
      store: { ...lastingStore(), take: () => Promise.reject(new Error("Gone")) },
    });
    const ticket = await fresh(at);
    expect(await at.redeem(ticket)).toEqual({ ok: false, code: "store_unavailable" });
    expect(at.store.takes).toHaveLength(1);
    const ticketTag = await tagOf(ticket);
    expect(logged(at, "store_failed")).toMatchObject([{ code: "Error", ticketTag }]);
  });

  test("fails at the deadline of the store, and a late reply admits no one", async () => {
    const at = world();
    const ticket = await fresh(at);
    const held = at.store.hold();
    const redeeming = at.redeem(ticket);
    await held.asked;
    await settle();
    at.clock.advance(DEPENDENCY_DEADLINE_MS - 1);
    expect(await isPending(redeeming)).toBe(true);
    at.clock.advance(1);
    expect(await redeeming).toEqual({ ok: false, code: "store_unavailable" });
    held.release();
    expect(await at.redeem(ticket)).toEqual(REFUSED);
    expect(at.store.takes).toHaveLength(2);
    expect(at.clock.delays).toBe(0);
  });

  test("issued and redeemed in any order, at any time, each ticket works once and in its time", () => {
    const action = fc.record({
      kind: fc.constantFrom("issue", "redeem", "wait"),
      which: fc.nat(20),
      ms: fc.integer({ min: 0, max: 20_000 }),
    });
    return fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const at = world();
        const model: { ticket: string; user: string; endsAtMs: number; spent: boolean }[] = [];
        for (const { kind, which, ms } of actions) {
          if (kind === "wait") at.clock.advance(ms);
          if (kind === "issue") {
            const user = `user-${model.length}`;
            const ticket = await fresh(at, { id: user });
            model.push({ ticket, user, endsAtMs: at.clock.nowMs() + 30_000, spent: false });
          }
          const one = model[which % (model.length || 1)];
          if (kind !== "redeem" || !one) continue;
          const good = !one.spent && at.clock.nowMs() < one.endsAtMs;
          one.spent = true;
          expect(await at.redeem(one.ticket)).toMatchObject(
            good ? { ok: true, identity: { id: one.user } } : REFUSED,
          );
        }
      }),
    );
  });
});

describe("a ticket over the wire", () => {
  test("is let in at 29,999 ms and refused at 30,000", async () => {
    await using server = startWatched();
    const [one, two] = [await server.ticket(), await server.ticket()];
    server.clock.advance(29_999);
    expect((await server.knock(one)).status).toBe(101);
    server.clock.advance(1);
    expect(codeOf(await server.knock(two))).toBe("ticket_refused");
  });

  test("comes with its lifetime, never longer than its token's", async () => {
    await using server = startWatched();
    for (const [ttlMs, expiresIn] of [
      [3_600_000, 30],
      [12_000, 12],
      [1_000, 1],
    ] as const) {
      const answer = await server.mint(await server.token("alice", { ttlMs }));
      expect(await answer.json()).toEqual({ ticket: expect.any(String), expiresIn });
    }
    const over = await server.mint(await server.token("alice", { ttlMs: 0 }));
    expect([over.status, await over.json()]).toMatchObject([401, { code: "token_invalid" }]);
  });

  test("malformed, unknown, used, expired and outlived ones get the same answer, byte for byte", async () => {
    await using server = startWatched({ store: lastingStore() });
    const [used, expired] = [await server.ticket(), await server.ticket()];
    expect((await server.knock(used)).status).toBe(101);
    server.clock.advance(30_000);
    const answers = await Promise.all(
      ["", "x", `${used}=`, toBase64url(new Uint8Array(32)), used, expired].map((ticket) =>
        server.knock(ticket),
      ),
    );
    const texts = answers.map(({ text }) => text.replace(/^Date: .*$/m, ""));
    expect(new Set(texts).size).toBe(1);
    expect(answers.map(codeOf)).toEqual(Array(6).fill("ticket_refused"));
  });

  test("of 16 clients at once exactly one gets in, 50 times", async () => {
    await using server = startWatched({ limits: { maxPerIdentity: 0 } });
    for (let round = 0; round < 50; round++) {
      const ticket = await server.ticket();
      const answers = await Promise.all(Array.from({ length: 16 }, () => server.knock(ticket)));
      const statuses = answers.map(({ status }) => status).sort();
      expect([round, ...statuses]).toEqual([round, 101, ...Array<number>(15).fill(401)]);
    }
    expect(server.store.takes).toHaveLength(50 * 16);
    const opened = server.logLines.filter((line) => line.includes('"socket_opened"'));
    expect(opened).toHaveLength(50);
  }, 30_000);
});

describe("isOwn", () => {
  test("says so of a ticket in its first five minutes, the first time that it is presented, and of no other", async () => {
    const at = world();
    const [first, second, third] = [await fresh(at), await fresh(at), await fresh(at)];
    expect(await at.isOwn(first)).toBe(true);
    expect(await at.isOwn(first)).toBe(false);
    at.clock.advance(300_000);
    expect(await at.isOwn(second)).toBe(true);
    at.clock.advance(300_000);
    expect(await at.isOwn(third)).toBe(false);
    expect(await at.isOwn("A".repeat(43))).toBe(false);
  });

  test("says so of a sibling's with the same secret, and of none with another", async () => {
    const [at, sibling] = [world(), world()];
    const stranger = world({ secret: "another secret of 32 bytes or more" });
    expect(await at.isOwn(await fresh(sibling))).toBe(true);
    expect(await at.isOwn(await fresh(stranger))).toBe(false);
  });

  test("covers every character of the ticket", async () => {
    const at = world();
    const ticket = await fresh(at);
    for (let n = 0; n < ticket.length; n++) {
      const other = ticket[n] === "A" ? "E" : "A";
      expect(await at.isOwn(ticket.slice(0, n) + other + ticket.slice(n + 1))).toBe(false);
    }
    expect(await at.isOwn(ticket)).toBe(true);
  });

  test("remembers the last 20,000 that were presented, and 40,000 at the most", async () => {
    const at = world();
    const tickets: string[] = [];
    for (let n = 0; n < 60_000; n++) tickets.push(await fresh(at, { id: `${n}` }));
    expect((await Promise.all(tickets.map(at.isOwn))).every(Boolean)).toBe(true);
    // The newest first: each that is forgotten is remembered anew.
    const again = await Promise.all(tickets.toReversed().map(at.isOwn));
    expect(again.slice(0, 20_000).some(Boolean)).toBe(false);
    expect(again.filter(Boolean).length).toBeGreaterThanOrEqual(20_000);
  });
});
