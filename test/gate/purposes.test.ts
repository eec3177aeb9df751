import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Gate } from "../../src/gate/gate.ts";
import type { Identity } from "../../src/gate/identity.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { redisTicketStore } from "../../src/gate/redis.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate } from "../support/gate.ts";
import { HANDSHAKE } from "../support/raw.ts";
import { describeWith } from "../support/require.ts";
import { startServer } from "../support/server.ts";
import { openSocket } from "../support/socket.ts";
import { startWire, type WireName } from "../support/wire.ts";

const REFUSED = { ok: false, code: "ticket_refused" } as const;

/** What a ticket may be issued and redeemed for; `undefined` means the socket. */
const PURPOSES = [
  undefined,
  "socket",
  "download",
  "Socket",
  "socket ",
  "__proto__",
  "p".repeat(64),
];
const PAIRS = PURPOSES.flatMap((issued) =>
  PURPOSES.map((redeemed) => [nameOf(issued), nameOf(redeemed), issued, redeemed] as const),
);

function nameOf(purpose: string | undefined): string {
  return purpose === undefined ? "nothing" : JSON.stringify(purpose);
}

interface Subject extends AsyncDisposable {
  /** Two gates that share their tickets. */
  readonly gates: readonly [Gate, Gate];
  readonly clock: FakeClock;
  readonly logLines: readonly string[];
}

async function startSubject(name: WireName | "memory"): Promise<Subject> {
  const clock = fakeClock();
  const wire = name === "memory" ? undefined : await startWire(name);
  const memory = memoryTicketStore({ clock });
  const start = () => {
    const store: TicketStore = wire
      ? redisTicketStore(wire.transport({ clock }))
      : { ...memory, async close() {} };
    return bareGate({ clock, store, ticketsPerMinute: 0 });
  };
  const [one, two] = [start(), start()];
  return {
    gates: [one.gate, two.gate],
    clock,
    get logLines() {
      return [...one.logLines, ...two.logLines];
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([one.gate.close(), two.gate.close()]);
      await wire?.[Symbol.asyncDispose]();
    },
  };
}

function contract(name: WireName | "memory"): void {
  let subject: Subject;
  let here: Gate;
  let there: Gate;
  beforeAll(async () => {
    subject = await startSubject(name);
    [here, there] = subject.gates;
  });
  afterAll(() => subject[Symbol.asyncDispose]());

  async function issue(options: { purpose?: string | undefined; claims?: unknown } = {}) {
    const expiresAtMs = subject.clock.nowMs() + 3_600_000;
    const issued = await here.issue({ user: "alice", expiresAtMs, ...options });
    if (!issued.ok) throw new Error(`No ticket: ${issued.code}`);
    return issued.ticket;
  }

  /** The identity that a ticket comes to at the other gate. */
  async function redeem(ticket: string, purpose?: string): Promise<Identity> {
    const redeemed = await there.redeem(ticket, { purpose });
    if (!redeemed.ok) throw new Error(`Refused: ${redeemed.code}`);
    return redeemed.identity;
  }

  test.each(PAIRS)(
    "a ticket issued for %s and redeemed for %s",
    async (_, __, issued, redeemed) => {
      const ticket = await issue({ purpose: issued });
      const isSame = (issued ?? "socket") === (redeemed ?? "socket");
      const first = await there.redeem(ticket, { purpose: redeemed });
      if (isSame) expect(first).toMatchObject({ ok: true, identity: { id: "alice" } });
      else expect(first).toEqual(REFUSED);
      // Spent either way, for what it was issued for, too.
      expect(await there.redeem(ticket, { purpose: issued })).toEqual(REFUSED);
      expect(await here.redeem(ticket, { purpose: redeemed })).toEqual(REFUSED);
    },
  );

  test.each(PURPOSES)("a ticket for %p and a socket", async (purpose) => {
    const ticket = await issue({ purpose, claims: { room: 7 } });
    const knock = () =>
      there.admit(new Request(`${BARE_ORIGIN}/live?ticket=${ticket}`, { headers: HANDSHAKE }));
    const admitted = await knock();
    if (purpose === undefined || purpose === "socket") {
      expect(admitted).toMatchObject({ ok: true, identity: { id: "alice", claims: { room: 7 } } });
    } else {
      expect(admitted).toEqual(REFUSED);
    }
    expect(await knock()).toEqual(REFUSED);
    expect(await there.redeem(ticket, { purpose })).toEqual(REFUSED);
  });

  test("claims come back as their JSON makes them, whatever they are", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.jsonValue({ maxDepth: 4 }).filter((value) => JSON.stringify(value).length < 900),
        async (claims) => {
          const identity = await redeem(await issue({ claims }));
          expect(identity.claims).toEqual(JSON.parse(JSON.stringify(claims)));
        },
      ),
      { numRuns: 50 },
    );
  });

  test.each<[string, unknown, unknown]>([
    ["a date", { at: new Date(0) }, { at: "1970-01-01T00:00:00.000Z" }],
    ["what isn't JSON among them", { a: undefined, b: () => {}, c: Number.NaN }, { c: null }],
    ["null", null, null],
    ["false", false, false],
    ["an empty string", "", ""],
    ["text that no protocol likes", "a\r\n$3\r\n\0\ud800 ", "a\r\n$3\r\n\0\ud800 "],
    ["a key of every object", JSON.parse('{"__proto__":1}'), JSON.parse('{"__proto__":1}')],
  ])("claims with %s", async (_, claims, expected) => {
    const identity = await redeem(await issue({ claims }));
    expect(identity.claims).toEqual(expected as never);
    expect(Object.getPrototypeOf(identity)).toBe(Object.prototype);
  });

  test("without claims an identity has none", async () => {
    expect(await redeem(await issue())).not.toHaveProperty("claims");
  });

  test("claims that are changed after they were passed are unchanged in the ticket", async () => {
    const claims = { rooms: ["one"] };
    const ticket = await issue({ claims });
    claims.rooms.push("two");
    expect((await redeem(ticket)).claims).toEqual({ rooms: ["one"] });
  });

  test.each<[string, (bytes: number) => unknown]>([
    ["text", (bytes) => "x".repeat(bytes - 2)],
    ["text beyond ASCII", (bytes) => `${bytes % 2 ? "x" : ""}${"é".repeat((bytes - 2) >> 1)}`],
    ["an object", (bytes) => ({ a: "x".repeat(bytes - 8) })],
    ["a list", (bytes) => ["x".repeat(bytes - 4)]],
  ])(
    "claims of 1,024 bytes of JSON pass, one byte more is a RangeError: %s",
    async (_, claimsOf) => {
      const claims = claimsOf(1_024);
      const size = Buffer.byteLength(JSON.stringify(claims));
      expect([1_023, 1_024]).toContain(size);
      expect((await redeem(await issue({ claims }))).claims).toEqual(claims as never);
      const fault = await issue({ claims: claimsOf(1_025 + 1_024 - size) }).catch((error) => error);
      expect(fault).toEqual(new RangeError("Option claims must be at most 1024 bytes of JSON"));
    },
  );

  test("what is no JSON at all is a TypeError", async () => {
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    for (const claims of [() => {}, Symbol("claims"), 1n, cyclic]) {
      expect(await issue({ claims }).catch((error) => error)).toBeInstanceOf(TypeError);
    }
  });

  test("neither purpose nor claims are in the log", async () => {
    const ticket = await issue({ purpose: "canary-7f3a", claims: { note: "canary-7f3a" } });
    await redeem(ticket, "canary-7f3a");
    await here.redeem(ticket, { purpose: "canary-7f3a" });
    expect(subject.logLines.length).toBeGreaterThan(0);
    expect(subject.logLines.join("")).not.toContain("canary-7f3a");
  });
}

describe("in memory", () => contract("memory"));

describeWith("redis-server")("in Redis", () => contract("native"));

describeWith("redis-server")("in Redis over Upstash's REST API", () => contract("upstash"));

test("claims arrive in the handlers of sockets, as identity.claims and in socket.data", async () => {
  const claims = { room: "lobby", roles: ["reader", "writer"] };
  const seen: unknown[] = [];
  await using server = startServer({
    handlers: {
      open: (socket, identity) => void seen.push(identity.claims, socket.data.identity.claims),
      message(socket, identity, text) {
        seen.push(identity.claims, socket.data.identity.claims);
        socket.send(JSON.stringify({ text }));
      },
      close: (_, identity) => void seen.push(identity.claims),
    },
  });
  const expiresAtMs = server.clock.nowMs() + 3_600_000;
  const issued = await server.gate.issue({ user: "alice", expiresAtMs, claims });
  if (!issued.ok) throw new Error(issued.code);
  const socket = openSocket(
    `${server.origin.replace("http", "ws")}/ws/chat?ticket=${issued.ticket}`,
  );
  await socket.opened;
  socket.send("hello");
  await socket.next();
  await socket[Symbol.asyncDispose]();
  while (server.server.socketCount > 0) await new Promise((resolve) => setImmediate(resolve));
  expect(seen).toEqual(Array(5).fill(claims));
});

test("a ticket that was minted over HTTP opens a socket, and is good for nothing else", async () => {
  const { gate, send, bearer } = bareGate();
  const minted = await send("/api/auth/ws-ticket", { method: "POST", headers: await bearer() });
  const { ticket } = (await minted.json()) as { ticket: string };
  expect(await gate.redeem(ticket, { purpose: "download" })).toEqual(REFUSED);
  expect(await gate.redeem(ticket)).toEqual(REFUSED);
});
