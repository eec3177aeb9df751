import { describe, expect, test } from "bun:test";
import type { UserCredential } from "../../src/gate/identity.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate, expectHeaders, expectRefusal } from "../support/gate.ts";
import { startServer } from "../support/server.ts";

const TICKETS = "/api/auth/ws-ticket";
const SIGN_OUT = "/api/auth/sign-out";
const NOW_MS = fakeClock().nowMs();
const HOUR_MS = 3_600_000;

/** A site's own sessions: a cookie's value, and whose it is. */
const SESSIONS: Record<string, UserCredential> = {
  "session-of-alice": { user: "alice", session: "one", expiresAtMs: NOW_MS + HOUR_MS },
  "another-of-alice": { user: "alice", session: "two", expiresAtMs: NOW_MS + HOUR_MS },
  "nameless-of-bob": { user: "bob", expiresAtMs: NOW_MS + HOUR_MS },
};

/** The proof of a site with sessions in cookies. */
function prove({ headers }: Request): UserCredential | undefined {
  return SESSIONS[/(?:^|; )session=([\w-]+)/.exec(headers.get("cookie") ?? "")?.[1] ?? ""];
}

const signedIn = (session: string, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  headers: { Cookie: `session=${session}`, ...headers },
});

describe("a proof of one's own", () => {
  test("mints a ticket for whom it returns, with session, times and claims", async () => {
    const claims = { room: "lobby" };
    const { send, gate } = bareGate({
      users: async (request) => {
        await Promise.resolve();
        return request.headers.get("x-api-key") === "key of alice"
          ? {
              user: "alice",
              session: "s1",
              issuedAtMs: NOW_MS - 5_000,
              expiresAtMs: NOW_MS + HOUR_MS,
              claims,
            }
          : undefined;
      },
    });
    const headers = { "X-Api-Key": "key of alice" };
    const minted = await send(TICKETS, { method: "POST", headers });
    expect(minted.status).toBe(200);
    expectHeaders(minted.headers);
    const body = (await minted.json()) as { ticket: string };
    expect(body as unknown).toEqual({
      ticket: expect.stringMatching(/^[\w-]{43}$/),
      expiresIn: 30,
    });
    expect(await gate.redeem(body.ticket)).toEqual({
      ok: true,
      identity: {
        kind: "user",
        id: "alice",
        session: "s1",
        issuedAtMs: NOW_MS - 5_000,
        expiresAtMs: NOW_MS + HOUR_MS,
        claims,
      },
    });
  });

  test("may return its result at once, and is called once for each request", async () => {
    let calls = 0;
    const { send } = bareGate({
      users: (request) => {
        calls++;
        return prove(request);
      },
    });
    expect((await send(TICKETS, signedIn("session-of-alice"))).status).toBe(200);
    expect(calls).toBe(1);
  });

  test.each<[string, unknown]>([
    ["undefined", undefined],
    ["null", null],
    ["a promise of undefined", Promise.resolve(undefined)],
    ["a promise of null", Promise.resolve(null)],
    ["false", false],
  ])("that returns %s is token_missing", async (_, result) => {
    const { send } = bareGate({ users: () => result as undefined });
    for (const path of [TICKETS, SIGN_OUT]) {
      const response = await send(path, { method: "POST" });
      expect(response.headers.get("www-authenticate")).toBe("Bearer");
      await expectRefusal(response, 401, "token_missing");
    }
  });

  test("takes the place of bearer tokens, which are no way in any more", async () => {
    const { bearer } = bareGate();
    const { send } = bareGate({ users: prove });
    const response = await send(TICKETS, { method: "POST", headers: await bearer() });
    await expectRefusal(response, 401, "token_missing");
  });

  test.each<[string, () => never | Promise<never>]>([
    ["rejects", () => Promise.reject(new Error("canary-7f3a at db.internal"))],
    [
      "throws",
      () => {
        throw new Error("canary-7f3a at db.internal");
      },
    ],
    ["rejects with nothing", () => Promise.reject(undefined)],
  ])("that %s is keys_unavailable, logged, and nothing of it in the response", async (_, users) => {
    const { send, logLines } = bareGate({ users });
    const response = await send(TICKETS, { method: "POST" });
    expect(response.headers.get("retry-after")).toBe("5");
    expect(await response.clone().text()).not.toMatch(/canary|internal/);
    await expectRefusal(response, 503, "keys_unavailable");
    expect(logLines.join("")).toContain('"keys_unavailable"');
    expect(logLines.join("")).not.toMatch(/canary|internal/);
  });

  test("that hangs is keys_unavailable at its deadline, whatever comes of it later", async () => {
    const late = Promise.withResolvers<UserCredential>();
    const { send, clock } = bareGate({ users: () => late.promise });
    let isAnswered = false;
    const minting = send(TICKETS, { method: "POST" }).finally(() => {
      isAnswered = true;
    });
    while (clock.delays === 0) await settle(1);
    clock.advance(DEPENDENCY_DEADLINE_MS - 1);
    await settle();
    expect(isAnswered).toBe(false);
    clock.advance(1);
    await expectRefusal(await minting, 503, "keys_unavailable");
    late.reject(new Error("Too late"));
    await settle();
    expect(clock.delays).toBe(0);
  });

  test.each([
    [0, TICKETS, 401],
    [-HOUR_MS, TICKETS, 401],
    [999, TICKETS, 401],
    [1_000, TICKETS, 200],
    [0, SIGN_OUT, 401],
    [1, SIGN_OUT, 204],
  ])("that ends %d ms from now at %s: %d", async (leftMs, path, status) => {
    const users = () => ({ user: "alice", session: "s1", expiresAtMs: NOW_MS + leftMs });
    const response = await bareGate({ users }).send(path, { method: "POST" });
    expect(response.status).toBe(status);
    if (status === 401) await expectRefusal(response, 401, "token_invalid");
  });

  test.each<[string, unknown]>([
    ["no user", { expiresAtMs: NOW_MS + HOUR_MS }],
    ["an empty user", { user: "", expiresAtMs: NOW_MS + HOUR_MS }],
    ["a user that is a number", { user: 4_711, expiresAtMs: NOW_MS + HOUR_MS }],
    ["a user with a line feed", { user: "canary-7f3a\n", expiresAtMs: NOW_MS + HOUR_MS }],
    ["a user too long", { user: "canary-7f3a".repeat(30), expiresAtMs: NOW_MS + HOUR_MS }],
    [
      "a session with a NUL",
      { user: "a", session: "canary-7f3a\0", expiresAtMs: NOW_MS + HOUR_MS },
    ],
    ["no end", { user: "canary-7f3a" }],
    ["an end that is text", { user: "canary-7f3a", expiresAtMs: "2026-01-01" }],
    ["claims too large", { user: "a", expiresAtMs: NOW_MS + 1, claims: "canary-7f3a".repeat(99) }],
    ["true", true],
    ["text", "canary-7f3a"],
  ])("with %s is internal_error, and nothing of it leaks", async (_, credential) => {
    const { send, logLines } = bareGate({ users: () => credential as UserCredential });
    for (const path of [TICKETS, SIGN_OUT]) {
      const response = await send(path, { method: "POST" });
      expectHeaders(response.headers);
      expect(await response.clone().text()).not.toMatch(/canary|4711/);
      await expectRefusal(response, 500, "internal_error");
    }
    expect(logLines).toHaveLength(2);
    for (const line of logLines) {
      expect(JSON.parse(line)).toMatchObject({
        level: "error",
        event: "request_failed",
        code: expect.stringMatching(/^(?:TypeError|RangeError)$/),
      });
    }
    expect(logLines.join("")).not.toMatch(/canary|4711/);
  });

  test("is limited per user like any other", async () => {
    const { send } = bareGate({ users: prove, ticketsPerMinute: 1 });
    expect((await send(TICKETS, signedIn("session-of-alice"))).status).toBe(200);
    const refused = await send(TICKETS, signedIn("another-of-alice"));
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await send(TICKETS, signedIn("nameless-of-bob"))).status).toBe(200);
  });

  test("that fails counts towards the limit of its address only where something was presented", async () => {
    const { send } = bareGate({ users: prove, trustProxy: 1 });
    const post = (address: string, headers: Record<string, string> = {}) =>
      send(TICKETS, { method: "POST", headers: { "X-Forwarded-For": address, ...headers } });
    const guess = { Authorization: "Bearer guess" };
    for (let time = 0; time < 200; time++) {
      expect((await post("192.0.2.1")).status).toBe(401);
    }
    for (let time = 0; time < 120 + 10; time++) {
      expect((await post("192.0.2.2", guess)).status).toBe(401);
    }
    await expectRefusal(await post("192.0.2.2", guess), 429, "too_many_requests");
    expect((await post("192.0.2.1")).status).toBe(401);
  });
});

describe("a proof that browsers attach by themselves", () => {
  test.each([
    ["a foreign page", { Origin: "https://evil.example" }],
    ["a page without an origin of its own", { Origin: "null" }],
    ["another port of this host", { Origin: "http://127.0.0.1:3001" }],
    [
      "a page that claims to be the gate's own, from another site",
      { Origin: BARE_ORIGIN, "Sec-Fetch-Site": "cross-site" },
    ],
  ])("is no proof from %s, and isn't called", async (_, headers) => {
    let calls = 0;
    const { send, gate } = bareGate({
      users: (request) => {
        calls++;
        return prove(request);
      },
    });
    for (const path of [TICKETS, SIGN_OUT]) {
      const response = await send(path, signedIn("session-of-alice", headers));
      await expectRefusal(response, 403, "origin_refused");
    }
    expect(calls).toBe(0);
    // Nobody was signed out.
    const own = await gate.fetch(
      new Request(
        `${BARE_ORIGIN}${TICKETS}`,
        signedIn("session-of-alice", { Origin: BARE_ORIGIN }),
      ),
    );
    expect(own.status).toBe(200);
  });

  test.each([
    ["the gate's own origin", { Origin: BARE_ORIGIN }],
    ["no page: a program", {}],
  ])("is one from %s", async (_, headers) => {
    const { send } = bareGate({ users: prove });
    const response = await send(TICKETS, signedIn("session-of-alice", headers as {}));
    expect(response.status).toBe(200);
  });
});

describe("CORS with a proof of one's own", () => {
  const origins = ["https://app.example.com", "https://other.example.com"];
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
  };

  test.each(origins)("lets %s use its cookies", async (origin) => {
    const { send } = bareGate({ users: prove, origins });
    for (const path of [TICKETS, SIGN_OUT]) {
      const responses = [
        await send(path, { method: "OPTIONS", headers: { Origin: origin, ...preflight } }),
        await send(path, signedIn("session-of-alice", { Origin: origin })),
        await send(path, signedIn("unknown", { Origin: origin })),
      ];
      const allowed = path === TICKETS ? 200 : 204;
      expect(responses.map(({ status }) => status)).toEqual([204, allowed, 401]);
      for (const { headers } of responses) {
        expect(headers.get("access-control-allow-origin")).toBe(origin);
        expect(headers.get("access-control-allow-credentials")).toBe("true");
        expect(headers.get("vary")).toMatch(/\borigin\b/i);
      }
    }
  });

  test("lets no other origin", async () => {
    const { send } = bareGate({ users: prove, origins });
    for (const Origin of [BARE_ORIGIN, "https://evil.example", "null"]) {
      const responses = [
        await send(TICKETS, { method: "OPTIONS", headers: { Origin, ...preflight } }),
        await send(TICKETS, signedIn("session-of-alice", { Origin })),
      ];
      expect(responses.map(({ status }) => status)).toEqual([405, 403]);
      for (const { headers } of responses) {
        const names = [...headers.keys()];
        expect(names.filter((name) => name.startsWith("access-control-"))).toEqual([]);
        expect(headers.get("vary")).toMatch(/\borigin\b/i);
      }
    }
  });
});

describe("signing out with a proof of one's own", () => {
  test("ends the session that it names, and no other", async () => {
    const { send } = bareGate({ users: prove });
    expect((await send(SIGN_OUT, signedIn("session-of-alice"))).status).toBe(204);
    const refused = await send(TICKETS, signedIn("session-of-alice"));
    await expectRefusal(refused, 401, "token_invalid");
    expect((await send(TICKETS, signedIn("another-of-alice"))).status).toBe(200);
  });

  test("everywhere ends all of the user's, and no other user's", async () => {
    const { send } = bareGate({ users: prove });
    const everywhere = { ...signedIn("session-of-alice"), body: '{"everywhere":true}' };
    expect((await send(SIGN_OUT, everywhere)).status).toBe(204);
    for (const session of ["session-of-alice", "another-of-alice"]) {
      await expectRefusal(await send(TICKETS, signedIn(session)), 401, "token_invalid");
    }
    expect((await send(TICKETS, signedIn("nameless-of-bob"))).status).toBe(200);
  });

  test.each<[string, () => RequestInit & { duplex?: "half" }]>([
    ["whole", () => ({ body: '{"everywhere":true,"key":"of-alice"}' })],
    [
      "as a stream of unknown length",
      () => ({ body: new Blob(['{"everywhere":true,"key":"of-alice"}']).stream(), duplex: "half" }),
    ],
  ])(
    "works where the proof is in the body, sent %s, which the route reads, too",
    async (_, init) => {
      const clock = fakeClock();
      const { send } = bareGate({
        clock,
        async users(request) {
          const { key } = (await request.json()) as { key: string };
          const expiresAtMs = clock.nowMs() + 60_000;
          return key === "of-alice" ? { user: "alice", session: "one", expiresAtMs } : undefined;
        },
      });
      expect((await send(SIGN_OUT, { method: "POST", ...init() })).status).toBe(204);
      await expectRefusal(await send(TICKETS, { method: "POST", ...init() }), 401, "token_invalid");
      clock.advance(1);
      expect((await send(TICKETS, { method: "POST", ...init() })).status).toBe(200);
    },
  );

  test("without a name for the session ends everything up to now", async () => {
    const { send, clock } = bareGate({ users: prove });
    expect((await send(SIGN_OUT, signedIn("nameless-of-bob"))).status).toBe(204);
    await expectRefusal(await send(TICKETS, signedIn("nameless-of-bob")), 401, "token_invalid");
    // This proof has no time of issue of its own, so it is new with every request.
    clock.advance(1);
    expect((await send(TICKETS, signedIn("nameless-of-bob"))).status).toBe(200);
  });
});

test("the chat's routes use it for users, and the cookie for visitors where there is no proof", async () => {
  await using server = startServer({ users: prove });
  const statusOf = async (headers: Record<string, string>) =>
    (await fetch(`${server.origin}/api/chats`, { headers })).status;
  expect(await statusOf({ Cookie: "session=session-of-alice" })).toBe(200);
  expect(await statusOf({ Cookie: await server.visitorCookie() })).toBe(200);
  expect(await statusOf({ Cookie: "session=unknown" })).toBe(401);
  expect(await statusOf({ Cookie: "session=session-of-alice", Origin: "https://evil.test" })).toBe(
    403,
  );
});
