import { afterAll, beforeAll, expect, test } from "bun:test";
import { startInstance, type TestInstance } from "../support/process.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { startUpstashBridge, type UpstashBridge } from "../support/upstash.ts";

const USERS = 30;
/** Of each user, half of them on either instance. */
const SOCKETS_EACH = 6;
/** Between two cuts of all connections to Redis. */
const CUT_MS = 150;
/** A sign-out is due everywhere by then. */
const DUE_MS = 1_000;

interface Person {
  readonly token: string;
  readonly sockets: readonly TestSocket[];
}

/** Two processes on one Redis, and the sockets of all users. */
function contract(
  connect: (
    redis: TestRedis,
  ) => Promise<{ environment: Record<string, string>; bridge?: UpstashBridge }>,
): void {
  let redis: TestRedis;
  let bridge: UpstashBridge | undefined;
  let instances: readonly [TestInstance, TestInstance];
  let persons: Person[];
  /** Who was signed out. */
  const gone = new Set<Person>();

  beforeAll(async () => {
    redis = await startRedis();
    const connected = await connect(redis);
    ({ bridge } = connected);
    instances = await Promise.all([
      startInstance(connected.environment),
      startInstance(connected.environment),
    ]);
    persons = await Promise.all(
      Array.from({ length: USERS }, async (_, user) => ({
        token: await instances[0].token(`user ${user}`, { claims: { sid: "one" } }),
        sockets: [],
      })),
    );
    for (const person of persons) {
      const sockets = Array.from({ length: SOCKETS_EACH }, (_, at) => open(at, person.token));
      Object.assign(person, { sockets: await Promise.all(sockets) });
    }
  }, 60_000);

  afterAll(async () => {
    for (const instance of instances) await instance[Symbol.asyncDispose]();
    await bridge?.[Symbol.asyncDispose]();
    await redis[Symbol.asyncDispose]();
  });

  const instanceAt = (at: number) => instances[at % 2] as TestInstance;

  /** The first answer that isn't 503, and when its request was sent. */
  async function persist(
    send: () => Promise<Response>,
  ): Promise<{ answer: Response; sentAtMs: number }> {
    for (;;) {
      const sentAtMs = performance.now();
      const answer = await send();
      if (answer.status !== 503) return { answer, sentAtMs };
    }
  }

  async function ticketAt(at: number, token: string): Promise<string> {
    const { answer } = await persist(() => instanceAt(at).mint(token));
    return ((await answer.json()) as { ticket: string }).ticket;
  }

  async function open(at: number, token: string): Promise<TestSocket> {
    const ticket = await ticketAt(at, token);
    const socket = openSocket(
      `${instanceAt(at).origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`,
    );
    await socket.opened;
    return socket;
  }

  /** Signs a person out at one instance; fails unless all that belongs to the session ends everywhere in time. */
  async function expectSignOut(at: number, person: Person): Promise<void> {
    gone.add(person);
    const unused = [await ticketAt(0, person.token), await ticketAt(1, person.token)];
    const { answer, sentAtMs } = await persist(() =>
      fetch(`${instanceAt(at).origin}/api/auth/sign-out`, {
        method: "POST",
        headers: { Authorization: `Bearer ${person.token}` },
      }),
    );
    expect(answer.status).toBe(204);
    const ends = await Promise.all(
      person.sockets.map(async ({ closed }) => {
        const { code } = await closed;
        return { code, afterMs: performance.now() - sentAtMs };
      }),
    );
    expect(new Set(ends.map(({ code }) => code))).toEqual(new Set([4500]));
    expect(Math.max(...ends.map(({ afterMs }) => afterMs))).toBeLessThan(DUE_MS);
    for (const [minted, ticket] of unused.entries()) {
      const other = instanceAt(minted + 1);
      const { answer: knocked } = await persist(async () => {
        const { status } = await sendRaw(
          Number(new URL(other.origin).port),
          handshake(`/ws/chat?ticket=${ticket}`),
        );
        return new Response(null, { status });
      });
      expect(knocked.status).toBe(401);
    }
    for (const instance of instances) {
      const { answer: refused } = await persist(() => instance.mint(person.token));
      expect(refused.status).toBe(401);
    }
  }

  function expectOnlyGone(): void {
    for (const person of persons) {
      const isOpen = person.sockets.map(({ socket }) => socket.readyState === WebSocket.OPEN);
      expect(isOpen).toEqual(Array<boolean>(SOCKETS_EACH).fill(!gone.has(person)));
    }
  }

  test("ends the sockets of that session on both instances, and of no other user", async () => {
    expectOnlyGone();
    await expectSignOut(0, persons[0] as Person);
    await expectSignOut(1, persons[1] as Person);
    expectOnlyGone();
  }, 20_000);

  test("does so while every connection to Redis is cut again and again", async () => {
    let nextCut = Promise.withResolvers<void>();
    let cuts = 0;
    const cutting = setInterval(async () => {
      cuts += Number(await redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"));
      const { resolve } = nextCut;
      nextCut = Promise.withResolvers();
      resolve();
    }, CUT_MS);
    try {
      for (const at of [2, 3, 4, 5]) {
        // Right after one, before connections are made again.
        await nextCut.promise;
        await expectSignOut(at, persons[at] as Person);
      }
    } finally {
      clearInterval(cutting);
    }
    expect(cuts).toBeGreaterThan(4);
    expectOnlyGone();
  }, 30_000);

  test("does so for 15 users at once, at both instances", async () => {
    const others = persons.filter((person) => !gone.has(person)).slice(0, 15);
    await Promise.all(others.map((person, at) => expectSignOut(at, person)));
    expectOnlyGone();
  }, 20_000);

  test("leaves all other sockets working", async () => {
    for (const person of persons.filter((one) => !gone.has(one)).slice(0, 5)) {
      for (const socket of person.sockets) {
        socket.send({ type: "?" });
        expect(await socket.next()).toMatchObject({ type: "ERROR" });
      }
    }
  });
}

describeWith("redis-server")("a sign-out over two processes on one Redis", () => {
  contract(async ({ url }) => ({ environment: { REDIS_URL: url } }));
});

describeWith("redis-server")("a sign-out over two processes and Upstash's REST API", () => {
  contract(async ({ url }) => {
    const bridge = await startUpstashBridge(url);
    return {
      environment: {
        UPSTASH_REDIS_REST_URL: bridge.url,
        UPSTASH_REDIS_REST_TOKEN: bridge.token,
      },
      bridge,
    };
  });
});
