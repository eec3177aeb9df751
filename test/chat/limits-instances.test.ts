import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { MAX_UNANSWERED_MESSAGES } from "../../src/chat/history.ts";
import { REQUESTS_PER_MINUTE } from "../../src/chat/limits.ts";
import { redisChatHistory } from "../../src/chat/redis.ts";
import { sharedTicketStore } from "../../src/gate/redis.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { createFeed } from "../../src/redis/feed.ts";
import { feedKeys } from "../../src/redis/keys.ts";
import { begin, newVisitorId } from "../support/chat.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import { describeWith } from "../support/require.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { TestSocket } from "../support/socket.ts";
import { startWire, type Wire, WIRE_NAMES, type WireName } from "../support/wire.ts";

const [FEED_STREAM] = feedKeys();

const USER = "alice";
const MINUTES = 10;
/** How far both together may be over the limit. */
const TOLERANCE = 1.1;

/** Two servers on one Redis, whose limits go by one clock that stands still; Redis goes by the machine's. */
interface Pair extends AsyncDisposable {
  readonly servers: readonly [TestServer, TestServer];
  readonly clock: FakeClock;
}

function startPair(wire: Wire, name: WireName): Pair {
  const clock = fakeClock();
  const startOne = () => {
    const feed = createFeed({
      ...{ transport: wire.transport(), clock: systemClock, log: () => {} },
      blocking: name === "native" ? wire.transport() : undefined,
    });
    return startServer({
      clock,
      store: sharedTicketStore({ transport: wire.transport(), feed }),
      history: redisChatHistory({ transport: wire.transport(), feed, clock }),
      limits: { messagesPerSecond: 0 },
    });
  };
  const servers = [startOne(), startOne()] as const;
  return {
    ...{ servers, clock },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]();
    },
  };
}

let refs = 0;

async function isStored(socket: TestSocket, frame: Record<string, unknown>): Promise<boolean> {
  const ref = `ref ${++refs}`;
  socket.send({ ...frame, ref });
  const { type, code } = await socket.next((one) => one.ref === ref);
  if (type !== "ACK") expect(code).toBe("too_many_messages");
  return type === "ACK";
}

for (const name of WIRE_NAMES) {
  describeWith("redis-server")(`one identity on two servers over ${name}`, () => {
    let wire: Wire;
    let pair: Pair;
    beforeAll(async () => {
      wire = await startWire(name);
    });
    beforeEach(() => {
      pair = startPair(wire, name);
    });
    afterEach(async () => {
      await pair[Symbol.asyncDispose]();
      await wire.redis.command("FLUSHALL");
    });
    afterAll(() => wire[Symbol.asyncDispose]());

    /** The cookie of a visitor whom the user has answered. */
    async function answeredCookie({ servers, clock }: Pair): Promise<string> {
      const cookie = await servers[0].visitorCookie();
      const history = redisChatHistory({
        ...{ transport: wire.transport(), clock, feed: { wake() {} } as never },
      });
      await begin(history, { user: USER, visitor: visitorIdOf(cookie) }, { atMs: clock.nowMs() });
      await history.close();
      return cookie;
    }

    test("may write as much as on one, with ten sockets on each at once", async () => {
      const { servers, clock } = pair;
      const cookie = await answeredCookie(pair);
      const sockets = await Promise.all(
        servers.map((server) =>
          Promise.all(Array.from({ length: 10 }, () => server.openVisitor(cookie))),
        ),
      );
      // A visitor's 10,000 a minute, and as much as in ten minutes at once.
      const frame = { type: "ANON_TO_USER", to: USER, content: "x".repeat(3_950) };
      const most = (2 * MINUTES * 10_000) / 4_000;
      let stored = 0;
      const stepMs = 2_000;
      for (let passedMs = 0; passedMs < MINUTES * 60_000; passedMs += stepMs) {
        const at = (passedMs / stepMs) % 10;
        const outcomes = await Promise.all(
          sockets.flatMap((own) => [
            isStored(own[at] as TestSocket, frame),
            isStored(own[9 - at] as TestSocket, frame),
          ]),
        );
        stored += outcomes.filter(Boolean).length;
        clock.advance(stepMs);
      }
      expect(stored).toBeLessThanOrEqual(most * TOLERANCE);
      expect(stored).toBeGreaterThanOrEqual(most / TOLERANCE);
      await Promise.all(sockets.flat().map((socket) => socket[Symbol.asyncDispose]()));
    }, 30_000);

    test("may write as much as on one at the same moment, before either hears of the other", async () => {
      const { servers, clock } = pair;
      const cookie = await answeredCookie(pair);
      const sockets = await Promise.all(
        servers.flatMap((server) => Array.from({ length: 10 }, () => server.openVisitor(cookie))),
      );
      // A visitor's 100,000 at once.
      const frame = { type: "ANON_TO_USER", to: USER, content: "x".repeat(3_950) };
      const outcomes = await Promise.all(
        sockets.flatMap((socket) => [isStored(socket, frame), isStored(socket, frame)]),
      );
      expect(outcomes.filter(Boolean)).toHaveLength(25);
      clock.advance(24_000);
      const later = await Promise.all(sockets.map((socket) => isStored(socket, frame)));
      expect(later.filter(Boolean)).toHaveLength(1);
      await Promise.all(sockets.map((socket) => socket[Symbol.asyncDispose]()));
    });

    test("may send a user who never answered as many messages as on one", async () => {
      const { servers } = pair;
      const cookie = await servers[0].visitorCookie();
      const sockets = await Promise.all(servers.map((server) => server.openVisitor(cookie)));
      const frame = { type: "ANON_TO_USER", to: USER, content: "x" };
      const outcomes = await Promise.all(
        Array.from({ length: 3 * MAX_UNANSWERED_MESSAGES }, (_, n) =>
          isStored(sockets[n % 2] as TestSocket, frame),
        ),
      );
      expect(outcomes.filter(Boolean)).toHaveLength(MAX_UNANSWERED_MESSAGES);
      await Promise.all(sockets.map((socket) => socket[Symbol.asyncDispose]()));
    });

    test("may make as many requests as on one, of all kinds together", async () => {
      const { servers } = pair;
      const peer = `/api/chats/${newVisitorId()}`;
      const ways = [
        ["GET", "/api/chats"],
        ["GET", `${peer}/messages`],
        ["PUT", `${peer}/block`],
        ["DELETE", `${peer}/block`],
        ["POST", `${peer}/read`],
        ["DELETE", peer],
      ] as const;
      const startMs = performance.now();
      const statuses: number[] = [];
      const token = await servers[0].token(USER);
      const headers = { Authorization: `Bearer ${token}` };
      while (statuses.length < 2 * REQUESTS_PER_MINUTE) {
        const answers = await Promise.all(
          Array.from({ length: 60 }, (_, n) => {
            const [method, path] = ways[n % ways.length] as (typeof ways)[number];
            const { origin } = servers[(n >> 1) % 2] as TestServer;
            return fetch(`${origin}${path}`, { method, headers });
          }),
        );
        statuses.push(...answers.map(({ status }) => status));
      }
      const grownBack = ((performance.now() - startMs) / 60_000) * REQUESTS_PER_MINUTE;
      const allowed = statuses.filter((status) => status !== 429).length;
      expect(allowed).toBeLessThanOrEqual((REQUESTS_PER_MINUTE + grownBack) * TOLERANCE);
      expect(allowed).toBeGreaterThanOrEqual(REQUESTS_PER_MINUTE);
      expect(statuses).not.toContain(503);
    }, 30_000);

    test("may sign out as often as on one: each that is done is an entry for all", async () => {
      const { servers } = pair;
      const PER_MINUTE = 10;
      const lengthBefore = Number(await wire.redis.command("XLEN", FEED_STREAM));
      const startMs = performance.now();
      const statuses = await Promise.all(
        Array.from({ length: 6 * PER_MINUTE }, async (_, n) => {
          const server = servers[n % 2] as TestServer;
          const token = await server.token(USER, { claims: { jti: crypto.randomUUID() } });
          const headers = { Authorization: `Bearer ${token}` };
          return (await server.ask("/api/auth/sign-out", { method: "POST", headers })).status;
        }),
      );
      const grownBack = Math.ceil(((performance.now() - startMs) / 60_000) * PER_MINUTE);
      const done = statuses.filter((status) => status === 204).length;
      expect(new Set(statuses)).toEqual(new Set([204, 429]));
      expect(done).toBeGreaterThanOrEqual(PER_MINUTE);
      expect(done).toBeLessThanOrEqual(PER_MINUTE + grownBack);
      expect(Number(await wire.redis.command("XLEN", FEED_STREAM))).toBe(lengthBefore + done);
    });

    test("may mark as read through frames as often as on one", async () => {
      const { servers, clock } = pair;
      const cookie = await servers[0].visitorCookie();
      const visitor = visitorIdOf(cookie);
      const sockets = await Promise.all(servers.map((server) => server.openVisitor(cookie)));
      const history = redisChatHistory({
        ...{ transport: wire.transport(), clock, feed: { wake() {} } as never },
      });
      const users = Array.from({ length: 10 }, (_, n) => `user ${n}`);
      for (const user of users) await begin(history, { user, visitor }, { atMs: clock.nowMs() });
      const startMs = performance.now();
      const all = await Promise.all(
        sockets.map(async (socket) => {
          for (let n = 0; n < 50; n++) {
            socket.send({ type: "MARK_AS_READ", chatId: visitor, ref: `mark ${n}` });
          }
          socket.send({ type: "?", ref: "after" });
          await socket.next(({ ref }) => ref === "after");
          const refused = socket.frames.filter(({ code }) => code === "too_many_messages");
          return 50 - refused.length;
        }),
      );
      const grownBack = ((performance.now() - startMs) / 60_000) * REQUESTS_PER_MINUTE;
      const marks = all.reduce((sum, frames) => sum + frames, 0) * users.length;
      expect(marks).toBeLessThanOrEqual(REQUESTS_PER_MINUTE + grownBack);
      // One frame's worth may be left: it is spent in two parts.
      expect(marks).toBeGreaterThan(REQUESTS_PER_MINUTE - 2 * users.length);
      await history.close();
      await Promise.all(sockets.map((socket) => socket[Symbol.asyncDispose]()));
    });
  });
}
