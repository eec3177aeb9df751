import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Clock, systemClock } from "../../src/lib/clock.ts";
import { createFeed } from "../../src/redis/feed.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { sharedTicketStore } from "../../src/gate/redis.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { type FakeClock, fakeClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import { handshake, sendRaw } from "../support/raw.ts";
import { describeWith } from "../support/require.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openSocket, type TestSocket } from "../support/socket.ts";
import { startWire, type Wire, type WireName } from "../support/wire.ts";

const ADMIN_TOKEN = "an-operators-token-of-the-tests-0123456789";
const SIGN_OUT = "/api/auth/sign-out";

/** How many times as fast as the machine's clock the feed's polling runs. */
const HASTE = 10;
const hastyClock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * HASTE,
  after: (delayMs, run) => systemClock.after(delayMs / HASTE, run),
};

/** Store calls whose outcome is there, but hasn't come back yet. */
interface Latch {
  /** The next outcome waits; resolves when it does. Call the result to let it come. */
  hold(): Promise<() => void>;
}

/** Two servers that share what is revoked (or one that is both), each with a latch at its store. */
interface Subject extends AsyncDisposable {
  readonly clock: FakeClock;
  readonly servers: readonly [TestServer, TestServer];
  readonly latches: readonly [Latch, Latch];
  readonly wire?: Wire;
}

function latched(inner: TicketStore): { store: TicketStore; latch: Latch } {
  let reached: ((release: () => void) => void) | undefined;
  async function pass<T>(outcome: Promise<T>): Promise<T> {
    const result = await outcome;
    const reach = reached;
    if (!reach) return result;
    reached = undefined;
    await new Promise<void>(reach);
    return result;
  }
  return {
    store: {
      ...inner,
      take: (hash) => pass(inner.take(hash)),
      isRevoked: (credential) => pass(inner.isRevoked(credential)),
    },
    latch: {
      hold: () =>
        new Promise((resolve) => {
          reached = resolve;
        }),
    },
  };
}

async function startSubject(name: WireName | "memory"): Promise<Subject> {
  const clock = fakeClock();
  const wire = name === "memory" ? undefined : await startWire(name);
  function start(): { server: TestServer; latch: Latch } {
    const feed =
      wire &&
      createFeed({
        transport: wire.transport(),
        ...(name === "native" && { blocking: wire.transport() }),
        clock: hastyClock,
        log: () => {},
      });
    const { store, latch } = latched(
      wire
        ? sharedTicketStore({ transport: wire.transport(), feed })
        : memoryTicketStore({ clock }),
    );
    const server = startServer({
      clock,
      store,
      adminToken: ADMIN_TOKEN,
      handlers: {
        message: (socket, _, text) => void socket.send(JSON.stringify({ echo: text })),
      },
    });
    return { server, latch };
  }
  const first = start();
  const second = wire ? start() : first;
  return {
    clock,
    servers: [first.server, second.server],
    latches: [first.latch, second.latch],
    ...(wire && { wire }),
    async [Symbol.asyncDispose]() {
      for (const { server } of [first, second]) await server[Symbol.asyncDispose]();
      await wire?.[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when the socket has answered: it is open, and everything sent before has come. */
async function expectAlive(...sockets: TestSocket[]): Promise<void> {
  for (const socket of sockets) {
    const mark = crypto.randomUUID();
    socket.send(mark);
    const ended = socket.closed.then(({ code }) => Promise.reject(new Error(`Ended: ${code}`)));
    await Promise.race([socket.next(({ echo }) => echo === mark), ended]);
  }
}

async function expectEnded(...sockets: TestSocket[]): Promise<void> {
  for (const { closed } of sockets) {
    expect(await closed).toEqual({ code: 4500, reason: "Signed out" });
  }
}

async function ticketFor(server: TestServer, token: string): Promise<string> {
  const answer = await server.mint(token);
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { ticket: string }).ticket;
}

function socketFor(server: TestServer, ticket: string): TestSocket {
  return openSocket(`${server.origin.replace("http", "ws")}/ws/chat?ticket=${ticket}`);
}

async function open(server: TestServer, token: string): Promise<TestSocket> {
  const socket = socketFor(server, await ticketFor(server, token));
  await socket.opened;
  return socket;
}

async function knock(server: TestServer, ticket: string): Promise<number> {
  return (await sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`))).status;
}

async function signOut(server: TestServer, token: string, body?: string): Promise<Response> {
  return fetch(`${server.origin}${SIGN_OUT}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
    ...(body !== undefined && { body }),
  });
}

function kick(server: TestServer, id: string, token = ADMIN_TOKEN): Promise<Response> {
  return fetch(`${server.origin}/api/admin/identities/${encodeURIComponent(id)}/sockets`, {
    method: "DELETE",
    headers: { Authorization: `Bearer ${token}` },
  });
}

async function chats(server: TestServer, token: string): Promise<number> {
  return (await server.ask("/api/chats", { headers: { Authorization: `Bearer ${token}` } })).status;
}

let people = 0;
/** A user of no other test; what is revoked stays so. */
function newUser(): string {
  return `user ${++people}`;
}

function contract(start: () => Promise<Subject>): void {
  let subject: Subject;
  let here: TestServer;
  let there: TestServer;
  let clock: FakeClock;
  beforeAll(async () => {
    subject = await start();
    [here, there] = subject.servers;
    ({ clock } = subject);
  });
  afterAll(() => subject[Symbol.asyncDispose]());

  const issuedNow = () => ({ iat: Math.floor(clock.nowMs() / 1000) });

  test.each<[string, (session: number) => Record<string, unknown>]>([
    ["by its sid", (session) => ({ sid: `s${session}`, jti: crypto.randomUUID() })],
    ["by its jti where it has no sid", (session) => ({ jti: `j${session}` })],
    ["by the token itself where it has neither", (session) => ({ device: session })],
  ])("signing out ends one session, known %s, and no other", async (_, claimsOf) => {
    const user = newUser();
    const tokenOf = (session: number, of = user) =>
      here.token(of, { claims: { ...issuedNow(), ...claimsOf(session) } });
    const [token, otherToken, bobsToken] = [
      await tokenOf(1),
      await tokenOf(2),
      // The same names for another user's session.
      await tokenOf(1, newUser()),
    ];
    const ending = [await open(here, token), await open(there, token), await open(there, token)];
    const staying = [
      await open(here, otherToken),
      await open(there, otherToken),
      await open(there, bobsToken),
      await there.openVisitor(),
    ];
    const [dead, deadThere] = [await ticketFor(here, token), await ticketFor(there, token)];
    const [alive, bobs] = [await ticketFor(here, otherToken), await ticketFor(there, bobsToken)];

    const answer = await signOut(here, token);
    expect([answer.status, await answer.text()]).toEqual([204, ""]);

    await expectEnded(...ending);
    await expectAlive(...staying);
    expect(await knock(there, dead)).toBe(401);
    expect(await knock(here, deadThere)).toBe(401);
    expect([await knock(there, alive), await knock(here, bobs)]).toEqual([101, 101]);
    for (const server of [here, there]) {
      const refused = await server.mint(token);
      expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([
        401,
        "token_invalid",
      ]);
      expect(await chats(server, token)).toBe(401);
      for (const valid of [otherToken, bobsToken]) {
        expect((await server.mint(valid)).status).toBe(200);
        expect(await chats(server, valid)).toBe(200);
      }
    }
    for (const socket of staying) await socket[Symbol.asyncDispose]();
  });

  test("a refreshed token of the same session ends nothing, and ends with it", async () => {
    const user = newUser();
    const claims = () => ({ ...issuedNow(), sid: "one", jti: crypto.randomUUID() });
    const first = await here.token(user, { claims: claims() });
    const socket = await open(here, first);
    clock.advance(2_000);
    const second = await here.token(user, { ttlMs: 7_200_000, claims: claims() });
    const later = await open(there, second);
    await expectAlive(socket, later);
    expect((await here.mint(first)).status).toBe(200);
    expect((await signOut(there, second)).status).toBe(204);
    await expectEnded(socket, later);
    for (const token of [first, second]) expect((await here.mint(token)).status).toBe(401);
    clock.advance(2_000);
    const third = await here.token(user, { claims: claims() });
    expect((await there.mint(third)).status).toBe(401);
  });

  test("signing in anew after signing out is a session like any other", async () => {
    const user = newUser();
    const token = await here.token(user, { claims: { ...issuedNow(), sid: "old" } });
    await signOut(here, token);
    const next = await here.token(user, { claims: { ...issuedNow(), sid: "new" } });
    await using socket = await open(there, next);
    await expectAlive(socket);
  });

  test("signing out twice is the same as once", async () => {
    const token = await here.token(newUser(), { claims: { ...issuedNow(), sid: "one" } });
    for (const server of [here, there, here])
      expect((await signOut(server, token)).status).toBe(204);
    expect((await there.mint(token)).status).toBe(401);
  });

  test("signing out everywhere ends all sessions up to now, and a token of later works", async () => {
    const user = newUser();
    const tokenOf = (sid: string) => here.token(user, { claims: { ...issuedNow(), sid } });
    const tokens = [await tokenOf("one"), await tokenOf("two"), await here.token(user)];
    const ending: TestSocket[] = [];
    for (const token of tokens) ending.push(await open(here, token), await open(there, token));
    const tickets = await Promise.all(tokens.map((token) => ticketFor(there, token)));
    await using bob = await here.openUser(newUser());
    await using visitor = await there.openVisitor();
    expect((await signOut(here, tokens[0] as string, '{"everywhere":true}')).status).toBe(204);
    await expectEnded(...ending);
    await expectAlive(bob, visitor);
    for (const ticket of tickets) expect(await knock(there, ticket)).toBe(401);
    for (const token of tokens) {
      expect((await there.mint(token)).status).toBe(401);
      expect(await chats(here, token)).toBe(401);
    }
    // The issuer's clock may be ahead by 5 s.
    clock.advance(5_000);
    expect((await there.mint(await tokenOf("one"))).status).toBe(401);
    clock.advance(1_000);
    const later = await tokenOf("one");
    await using socket = await open(there, later);
    await expectAlive(socket);
    expect(await chats(here, later)).toBe(200);
  });

  test("a session that was signed out can't sign out the others", async () => {
    const user = newUser();
    const tokenOf = (sid: string) => here.token(user, { claims: { ...issuedNow(), sid } });
    const [stolen, other] = [await tokenOf("stolen"), await tokenOf("other")];
    await signOut(here, stolen);
    await using socket = await open(here, other);
    const answer = await signOut(there, stolen, '{"everywhere":true}');
    expect([answer.status, await answer.json()]).toMatchObject([401, { code: "token_invalid" }]);
    await expectAlive(socket);
  });

  test.each([
    ["no JSON", "everywhere"],
    ["half of it", '{"everywhere":'],
    ["null", "null"],
    ["a string for true", '{"everywhere":"true"}'],
    ["a number for true", '{"everywhere":1}'],
    ["null for true", '{"everywhere":null}'],
  ])("a body that is %s gets 400 and ends nothing", async (_, body) => {
    const token = await here.token(newUser());
    await using socket = await open(here, token);
    const answer = await signOut(here, token, body);
    expect([answer.status, await answer.json()]).toMatchObject([
      400,
      { code: "malformed_request" },
    ]);
    await expectAlive(socket);
    expect((await here.mint(token)).status).toBe(200);
  });

  test.each([
    ["empty", ""],
    ["an empty object", "{}"],
    ["one with everywhere false", '{"everywhere":false}'],
  ])("a body that is %s signs out this session alone", async (_, body) => {
    const user = newUser();
    const [one, two] = [
      await here.token(user, { claims: { sid: "one" } }),
      await here.token(user, { claims: { sid: "two" } }),
    ];
    await using socket = await open(here, two);
    expect((await signOut(here, one, body)).status).toBe(204);
    await expectAlive(socket);
    expect((await here.mint(one)).status).toBe(401);
  });

  test("an operator ends a user's sockets on every instance, and tokens up to now", async () => {
    const user = newUser();
    const token = await here.token(user, { claims: issuedNow() });
    const ending = [await open(here, token), await open(there, token)];
    const ticket = await ticketFor(here, token);
    await using other = await there.openUser(newUser());
    expect((await kick(here, user)).status).toBe(204);
    await expectEnded(...ending);
    await expectAlive(other);
    expect(await knock(there, ticket)).toBe(401);
    expect((await there.mint(token)).status).toBe(401);
    expect(await chats(there, token)).toBe(401);
    clock.advance(6_000);
    await using again = await open(there, await here.token(user, { claims: issuedNow() }));
    await expectAlive(again);
  });

  test("an operator ends a visitor's sockets, and the cookie is no way in any more: it is replaced, not renewed", async () => {
    const cookie = await here.visitorCookie();
    const ending = [await here.openVisitor(cookie), await there.openVisitor(cookie)];
    await using other = await there.openVisitor();
    expect((await kick(here, visitorIdOf(cookie))).status).toBe(204);
    await expectEnded(...ending);
    await expectAlive(other);
    clock.advance(5_000);
    for (const server of [here, there]) {
      const headers = { Origin: server.origin, Cookie: cookie };
      const { host } = new URL(server.origin);
      const request = handshake("/ws/chat", headers, { host });
      expect((await sendRaw(server.port, request)).status).toBe(401);
      expect((await server.ask("/api/chats", { cookie })).status).toBe(401);
      const session = await server.ask("/api/auth/anonymous-session", { method: "POST", cookie });
      const next = session.headers.get("set-cookie")?.split(";")[0] ?? "";
      expect(session.status).toBe(204);
      expect(visitorIdOf(next)).not.toBe(visitorIdOf(cookie));
      await using socket = await server.openVisitor(next);
      await expectAlive(socket);
    }
  });

  test.each([
    ["a slash", "a/b"],
    ["what ends a path", "a?b#c"],
    ["a percent sign", "100%"],
    ["what looks encoded", "%2F%20"],
    ["letters of other scripts", "ÿ 漢字 é"],
    ["a plus", "a+b@example.com"],
    ["what looks like a visitor's id", "A".repeat(22)],
    ["what looks like a pattern", "*[a]?"],
  ])("an operator ends a user whose id has %s", async (_, id) => {
    const user = `${id}${id.length === 22 ? "" : ++people}`;
    const token = await here.token(user);
    const socket = await open(there, token);
    expect((await kick(here, user)).status).toBe(204);
    await expectEnded(socket);
    expect((await there.mint(token)).status).toBe(401);
  });

  test("an operator's kick of an unknown id ends nothing", async () => {
    await using user = await here.openUser(newUser());
    await using visitor = await here.openVisitor();
    for (const id of ["nobody", "*", "user", "A".repeat(22), "a/b", "ÿ 漢字"]) {
      expect((await kick(there, id)).status).toBe(204);
    }
    await expectAlive(user, visitor);
  });

  test.each<[string, (user: string, token: string) => Promise<unknown>]>([
    ["signed out on the same server", (_, token) => signOut(there, token)],
    ["signed out on another server", (_, token) => signOut(here, token)],
    ["kicked from another server", (user) => kick(here, user)],
  ])(
    "a user who is %s while the ticket is being redeemed gets no lasting socket",
    async (_, end) => {
      const user = newUser();
      const token = await here.token(user, { claims: issuedNow() });
      const reached = subject.latches[1].hold();
      const socket = socketFor(there, await ticketFor(here, token));
      const release = await reached;
      await end(user, token);
      release();
      expect((await socket.closed).code).toBe(4500);
    },
  );

  test("a visitor who is kicked while the handshake is under way gets no lasting socket", async () => {
    const cookie = await here.visitorCookie();
    const reached = subject.latches[1].hold();
    const url = `${there.origin.replace("http", "ws")}/ws/chat`;
    const socket = openSocket(url, { Origin: there.origin, Cookie: cookie });
    const release = await reached;
    await kick(here, visitorIdOf(cookie));
    release();
    expect((await socket.closed).code).toBe(4500);
  });

  test("a sign-out of over a minute ago still refuses its session, and no other", async () => {
    const user = newUser();
    const token = await here.token(user, { claims: { sid: "one" } });
    await signOut(here, token);
    clock.advance(61_000);
    const next = await here.token(user, { claims: { sid: "two" } });
    await using socket = await open(here, next);
    await expectAlive(socket);
    expect((await here.mint(token)).status).toBe(401);
  });
}

describe("in memory", () => contract(() => startSubject("memory")));

describeWith("redis-server")("on one Redis", () => {
  contract(() => startSubject("native"));
});

describeWith("redis-server")("over Upstash's REST API", () => {
  contract(() => startSubject("upstash"));
});

describeWith("redis-server")("the first handshake of an instance", () => {
  test.each(["native", "upstash"] as const)(
    "receives a sign-out at another one that comes while its ticket is being redeemed: %s",
    async (name) => {
      await using subject = await startSubject(name);
      const [here, there] = subject.servers;
      const token = await here.token("alice");
      const reached = subject.latches[1].hold();
      const socket = socketFor(there, await ticketFor(here, token));
      const release = await reached;
      expect((await signOut(here, token)).status).toBe(204);
      release();
      expect((await socket.closed).code).toBe(4500);
    },
  );
});

describeWith("redis-server")("with the store away", () => {
  test.each(["native", "upstash"] as const)(
    "signing out and kicking are refused with 503, end this instance's sockets all the same, and can be repeated: %s",
    async (name) => {
      await using subject = await startSubject(name);
      const [here, there] = subject.servers;
      const wire = subject.wire as Wire;
      const token = await here.token("alice", { claims: { sid: "one" } });
      const cookie = await here.visitorCookie();
      const [user, visitor, far] = [
        await open(here, token),
        await here.openVisitor(cookie),
        await open(there, token),
      ];
      await using other = await here.openUser("bob");
      await wire.goDown();
      const startedAtMs = performance.now();
      for (const answer of [await signOut(here, token), await kick(here, visitorIdOf(cookie))]) {
        expect([answer.status, await answer.json()]).toMatchObject([
          503,
          { code: "store_unavailable" },
        ]);
      }
      expect(performance.now() - startedAtMs).toBeLessThan(4_000);
      await expectEnded(user, visitor);
      await expectAlive(other, far);
      expect((await here.mint(token)).status).toBe(503);
      expect(await chats(here, token)).toBe(503);
      await wire.comeBack();
      let status = 503;
      while (status === 503) {
        ({ status } = await signOut(here, token));
        await Bun.sleep(10);
      }
      expect(status).toBe(204);
      const { code } = await far.closed;
      // Redis forgot what was in the feed: who may have missed something comes again.
      expect([4500, 1012]).toContain(code);
      expect((await there.mint(token)).status).toBe(401);
    },
    20_000,
  );
});
