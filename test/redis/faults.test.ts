import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { openRedis } from "../../src/open.ts";
import { fakeClock, underClock } from "../support/clock.ts";
import {
  atDeadline,
  expectHealthy,
  expectUnavailable,
  mint,
  MINTED,
  OPENED,
  type Outcome,
  ready,
  REFUSED,
  serverOn,
  UNAVAILABLE,
  UNKNOWN_TICKET,
  upgrade,
  upgradeVisitor,
} from "../support/outage.ts";
import { freePort } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { startWire, type Wire, type WireName, WIRE_NAMES } from "../support/wire.ts";

/** A server on this Redis as `openRedis` opens it, feed included. */
async function serverWith({ settings }: Wire): Promise<TestServer> {
  const clock = fakeClock();
  const { store } = await openRedis(settings, { clock, log: () => {} });
  return startServer({ clock, store });
}

/** Runs `end` once: when it is disposed of, or at the end of the block, so that the next test has a Redis without fault. */
function endOnce(end: () => unknown): AsyncDisposable {
  let ended: Promise<unknown> | undefined;
  return {
    async [Symbol.asyncDispose]() {
      await (ended ??= Promise.resolve(end()));
    },
  };
}

/** What can be wrong with a Redis that both transports reach, and what still works then. */
const FAULTS: readonly {
  readonly name: string;
  begin(wire: Wire): unknown;
  end(wire: Wire): unknown;
  readonly mint: Outcome;
  readonly upgrade: Outcome;
  /** A visitor's handshake, for which the store is read, too. */
  readonly visitor: Outcome;
  /** Commands get no reply at all. */
  readonly hangs?: true;
  /** Where the feed is lost, so that open sockets end once that is noticed. */
  readonly losesFeed?: readonly WireName[];
}[] = [
  {
    name: "is gone",
    begin: (wire) => wire.goDown(),
    end: (wire) => wire.comeBack(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
    // It comes back empty; behind Upstash's API only the API was gone.
    losesFeed: ["native"],
  },
  {
    name: "is frozen",
    begin: (wire) => wire.redis.freeze(),
    end: (wire) => wire.redis.thaw(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
    hangs: true,
  },
  {
    name: "accepts commands and never replies",
    begin: (wire) => wire.stall(),
    end: (wire) => wire.heal(),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
    hangs: true,
  },
  {
    name: "is paused for a failover",
    begin: ({ redis }) => redis.command("CLIENT", "PAUSE", "60000", "WRITE"),
    end: ({ redis }) => redis.command("CLIENT", "UNPAUSE"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    // It waits behind the others on the same connection.
    visitor: UNAVAILABLE,
    hangs: true,
  },
  {
    name: "has become a read-only replica",
    begin: ({ redis }) => redis.command("REPLICAOF", "127.0.0.1", String(freePort())),
    end: ({ redis }) => redis.command("REPLICAOF", "NO", "ONE"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "has lost its replicas and wants one for each write",
    begin: ({ redis }) => redis.command("CONFIG", "SET", "min-replicas-to-write", "1"),
    end: ({ redis }) => redis.command("CONFIG", "SET", "min-replicas-to-write", "0"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "lets this user near other keys only",
    begin: ({ redis }) => redis.command("ACL", "SETUSER", "default", "resetkeys", "~other:*"),
    end: ({ redis }) => redis.command("ACL", "SETUSER", "default", "allkeys"),
    mint: UNAVAILABLE,
    upgrade: UNAVAILABLE,
    visitor: UNAVAILABLE,
  },
  {
    name: "doesn't let this user remove anything",
    begin: ({ redis }) => redis.command("ACL", "SETUSER", "default", "-getdel"),
    end: ({ redis }) => redis.command("ACL", "SETUSER", "default", "+getdel"),
    mint: MINTED,
    upgrade: UNAVAILABLE,
    visitor: OPENED,
  },
  {
    name: "has no memory left and evicts nothing",
    begin: ({ redis }) => redis.command("CONFIG", "SET", "maxmemory", "1"),
    end: ({ redis }) => redis.command("CONFIG", "SET", "maxmemory", "0"),
    mint: UNAVAILABLE,
    upgrade: OPENED,
    visitor: OPENED,
  },
  {
    name: "has lost everything",
    begin: ({ redis }) => redis.command("FLUSHALL"),
    end: () => {},
    mint: MINTED,
    upgrade: REFUSED,
    visitor: OPENED,
    losesFeed: ["native", "upstash"],
  },
];

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`${name} transport`, () => {
    let wire: Wire;
    beforeAll(async () => {
      wire = await startWire(name);
    });
    beforeEach(() => wire.redis.command("FLUSHALL"));
    afterAll(() => wire[Symbol.asyncDispose]());

    for (const fault of FAULTS) {
      const isLost = fault.losesFeed?.includes(name) ?? false;
      const fate = isLost ? "open sockets end with 1012" : "open sockets stay";
      test(`while Redis ${fault.name}, answers ${fault.mint.status} and ${fault.upgrade.status}; ${fate}, and it recovers by itself`, async () => {
        await using server = await serverWith(wire);
        await using socket = await server.openUser("bob");
        const ticket = await server.ticket();
        const cookie = await server.visitorCookie();
        const takes = wire.sent("GETDEL");
        await fault.begin(wire);
        await using fixed = endOnce(() => fault.end(wire));

        const sent = wire.reached(name === "native" ? "EVAL" : "EVALSHA", "GETDEL");
        const first = Promise.all([mint(server), upgrade(server, ticket)]);
        await (fault.hangs ? sent : first);
        const read = wire.reached("MGET");
        const all = Promise.all([first, upgradeVisitor(server, cookie)]);
        const outcomes = await (fault.hangs ? atDeadline(server, read, all) : all);
        expect(outcomes.flat()).toEqual([fault.mint, fault.upgrade, fault.visitor]);
        expect(wire.sent("GETDEL") - takes).toBeLessThanOrEqual(1);

        const probe = ready(server);
        // In small steps: after 30 s without its feed the server would close its sockets.
        const status = await (fault.hangs
          ? underClock(server.clock, probe, { stepMs: 20 })
          : probe);
        expect(status).toBe(fault.upgrade === UNAVAILABLE ? 503 : 200);
        socket.send({ type: "?" });
        expect(await socket.next(({ type }) => type !== "HEARTBEAT")).toMatchObject({
          type: "ERROR",
        });

        await fixed[Symbol.asyncDispose]();
        if (fault.hangs) await server.clock.pass(2_000);
        await expectHealthy(server);
        if (isLost) {
          expect(await socket.closed).toEqual({ code: 1012, reason: "Server missed events" });
        } else {
          socket.send({ type: "?" });
          expect(await socket.next(({ type }) => type !== "HEARTBEAT")).toMatchObject({
            type: "ERROR",
          });
        }
      });
    }

    test("starts without its Redis, is not ready, and gets ready by itself", async () => {
      await using wire = await startWire(name);
      await wire.goDown();
      await using server = await serverWith(wire);
      await expectUnavailable(server, UNKNOWN_TICKET);
      expect((await server.ask("/healthz")).status).toBe(200);
      await wire.comeBack();
      await expectHealthy(server);
    });

    test("recovers from every outage, after many failed commands in each", async () => {
      await using wire = await startWire(name);
      await using server = await serverWith(wire);
      for (let outage = 0; outage < 3; outage++) {
        await expectHealthy(server);
        await wire.goDown();
        for (let attempt = 0; attempt < 15; attempt++) {
          expect(await mint(server)).toEqual(UNAVAILABLE);
          expect(await upgrade(server, UNKNOWN_TICKET)).toEqual(UNAVAILABLE);
        }
        await wire.comeBack();
      }
      await expectHealthy(server);
    });

    test("never repeats a take whose reply didn't come in time, and the ticket is spent", async () => {
      await using server = serverOn(wire.transport);
      const ticket = await server.ticket();
      const takes = wire.sent("GETDEL");
      wire.redis.freeze();
      await using thawed = endOnce(wire.redis.thaw);
      const taking = upgrade(server, ticket);
      expect(await atDeadline(server, wire.reached("GETDEL"), taking)).toEqual(UNAVAILABLE);
      await thawed[Symbol.asyncDispose]();
      while ((await wire.redis.ticketKeys()).length > 0) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(wire.sent("GETDEL") - takes).toBe(1);
      expect(server.server.socketCount).toBe(0);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
    });

    test("answers 503 where the reply to the take was lost, and 401 to the ticket from then on", async () => {
      await using server = serverOn(wire.transport);
      const ticket = await server.ticket();
      const takes = wire.sent("GETDEL");
      wire.loseReplies();
      await using _healed = endOnce(wire.heal);
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      wire.heal();
      expect(wire.sent("GETDEL") - takes).toBe(1);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
      await expectHealthy(server);
    });

    test("refuses a record that is stored under another ticket's hash", async () => {
      await using server = serverOn(wire.transport);
      const mine = await server.ticket("alice");
      const [key] = (await wire.redis.ticketKeys()) as [string];
      const yours = await server.ticket("bob");
      const keys = await wire.redis.ticketKeys();
      const other = keys.find((one) => one !== key) as string;
      const record = String(await wire.redis.command("GET", key));
      await wire.redis.command("SET", other, record);
      expect(await upgrade(server, yours)).toEqual(REFUSED);
      expect(await upgrade(server, mine)).toEqual(OPENED);
    });

    test("answers 503 where another type of value is stored under the ticket's key", async () => {
      await using server = serverOn(wire.transport);
      const ticket = await server.ticket();
      const [key] = (await wire.redis.ticketKeys()) as [string];
      await wire.redis.command("DEL", key);
      await wire.redis.command("RPUSH", key, "a");
      expect(await upgrade(server, ticket)).toEqual(UNAVAILABLE);
      await expectHealthy(server);
    });

    test("refuses a ticket that Redis kept beyond its time", async () => {
      await using server = serverOn(wire.transport);
      const [ticket, last] = [await server.ticket(), await server.ticket()];
      for (const key of await wire.redis.ticketKeys()) {
        await wire.redis.command("PERSIST", key);
      }
      server.clock.advance(29_999);
      expect(await upgrade(server, last)).toEqual(OPENED);
      server.clock.advance(1);
      expect(await upgrade(server, ticket)).toEqual(REFUSED);
    });
  });
}
