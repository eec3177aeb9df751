import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChatHistory, MAX_UNANSWERED_MESSAGES } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { newVisitorId, write } from "../support/chat.ts";
import { fakeClock } from "../support/clock.ts";
import { forge } from "../support/keys.ts";
import { type Answer, type Asking, visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer } from "../support/server.ts";

const clock = fakeClock();
const FRIEND = "https://friend.example";

let server: TestServer;
let history: ChatHistory;
let users = 0;

beforeAll(() => {
  history = sqliteChatHistory({ path: ":memory:", clock });
  server = startServer({ history, clock });
});
afterAll(() => server[Symbol.asyncDispose]());

/** A user and a visitor with a chat, and in no other test. */
async function newPair(messages = 1) {
  const user = `user ${++users}`;
  const cookie = await server.visitorCookie();
  const visitor = visitorIdOf(cookie);
  const where = { user, visitor };
  const ids: string[] = [];
  for (let n = 0; n < messages; n++) {
    // An answer after the first, so that there may be any number.
    const from = n === 1 && messages > MAX_UNANSWERED_MESSAGES ? "user" : "visitor";
    ids.push(await write(history, where, `${n}`, { from, atMs: clock.nowMs() }));
  }
  const path = { user: `/api/chats/${visitor}`, visitor: `/api/chats/${encodeURIComponent(user)}` };
  return { user, cookie, visitor, where, ids, path };
}

function refusalOf({ status, body }: Answer): [number, unknown] {
  return [status, body?.code];
}

describe("credentials", () => {
  const ASKED: readonly (readonly [method: string, path: string])[] = [
    ["GET", "/api/chats"],
    ["GET", `/api/chats/${newVisitorId()}/messages`],
    ["POST", `/api/chats/${newVisitorId()}/read`],
    ["PUT", `/api/chats/${newVisitorId()}/block`],
    ["DELETE", `/api/chats/${newVisitorId()}/block`],
    ["DELETE", `/api/chats/${newVisitorId()}`],
  ];
  /** What a page of the server's own sends. */
  const fromPage = (cookie: string) => ({ Cookie: cookie, Origin: server.origin });
  const BAD: readonly (readonly [
    what: string,
    headers: () => Record<string, string> | Promise<Record<string, string>>,
    expected: [number, string],
  ])[] = [
    ["no credential", () => ({}), [401, "session_refused"]],
    ["an empty cookie", () => fromPage("anonSessionId="), [401, "session_refused"]],
    [
      "a visitor's id as the cookie",
      () => fromPage(`anonSessionId=${newVisitorId()}`),
      [401, "session_refused"],
    ],
    [
      "a cookie whose id was changed",
      async () => {
        const cookie = await server.visitorCookie();
        return fromPage(cookie.replace(visitorIdOf(cookie), newVisitorId()));
      },
      [401, "session_refused"],
    ],
    [
      "two cookies",
      async () => fromPage(`${await server.visitorCookie()}; ${await server.visitorCookie()}`),
      [401, "session_refused"],
    ],
    ["a token that isn't one", () => ({ Authorization: "Bearer a.b.c" }), [401, "token_invalid"]],
    [
      "a token with another signature",
      () => ({
        Authorization: `Bearer ${forge(
          { alg: "HS256" },
          { sub: "alice", exp: clock.nowMs() / 1000 + 60 },
          { secret: "x".repeat(32) },
        )}`,
      }),
      [401, "token_invalid"],
    ],
    [
      "a token that has expired",
      async () => ({ Authorization: `Bearer ${await server.token("alice", { ttlMs: -60_000 })}` }),
      [401, "token_invalid"],
    ],
    [
      "a token that was signed out",
      async () => {
        const Authorization = `Bearer ${await server.token("gone")}`;
        const headers = { Authorization };
        const { status } = await server.ask("/api/auth/sign-out", { method: "POST", headers });
        expect(status).toBe(204);
        return headers;
      },
      [401, "token_invalid"],
    ],
    [
      "a token under another scheme",
      async () => ({ Authorization: `Basic ${await server.token()}` }),
      [401, "token_missing"],
    ],
    [
      "a bad token beside a good cookie",
      async () => ({
        Authorization: "Bearer a.b.c",
        Cookie: await server.visitorCookie(),
        Origin: server.origin,
      }),
      [401, "token_invalid"],
    ],
  ];
  for (const [method, path] of ASKED) {
    const route = path.replace(/[\w-]{22}/, ":partner");
    test.each(BAD)(`${method} ${route} with %s`, async (_, headers, expected) => {
      const answer = await server.ask(path, { method, headers: await headers() });
      expect(refusalOf(answer)).toEqual(expected);
    });
  }

  test("a token counts, and not the cookie beside it", async () => {
    const { user, cookie, visitor } = await newPair();
    const { body } = await server.ask("/api/chats", { user, cookie });
    expect(body.chats).toMatchObject([{ peer: visitor }]);
  });
});

describe("a visitor's cookie from", () => {
  const PAGES: readonly (readonly [
    what: string,
    headers: Record<string, string | null>,
    mayRead: boolean,
    mayChange: boolean,
  ])[] = [
    ["a page of the server's own", {}, true, true],
    ["a request without an origin", { Origin: null }, true, false],
    ["Sec-Fetch-Site: same-origin", { Origin: null, "Sec-Fetch-Site": "same-origin" }, true, true],
    ["Sec-Fetch-Site: same-site", { Origin: null, "Sec-Fetch-Site": "same-site" }, true, false],
    ["Sec-Fetch-Site: cross-site", { Origin: null, "Sec-Fetch-Site": "cross-site" }, true, false],
    ["Sec-Fetch-Site: none", { Origin: null, "Sec-Fetch-Site": "none" }, true, false],
    [
      "Sec-Fetch-Site with two values",
      { Origin: null, "Sec-Fetch-Site": "same-origin, none" },
      true,
      false,
    ],
    ["a foreign origin", { Origin: "https://evil.example" }, false, false],
    ["a sandboxed page", { Origin: "null" }, false, false],
    [
      "a foreign origin with Sec-Fetch-Site: same-origin",
      { Origin: "https://evil.example", "Sec-Fetch-Site": "same-origin" },
      false,
      false,
    ],
  ];
  test.each(PAGES)("%s", async (_, headers, mayRead, mayChange) => {
    const { cookie, path } = await newPair();
    const status = async (method: string, where: string) =>
      (await server.ask(where, { method, cookie, headers })).status;
    const outcomes = [
      await status("GET", "/api/chats"),
      await status("GET", `${path.visitor}/messages`),
      await status("POST", `${path.visitor}/read`),
      await status("DELETE", path.visitor),
    ];
    expect(outcomes).toEqual([
      ...(mayRead ? [200, 200] : [403, 403]),
      ...(mayChange ? [200, 204] : [403, 403]),
    ]);
  });

  test("a user's token may come from any page", async () => {
    const { user, path } = await newPair();
    const asking = { user, method: "DELETE", headers: { Origin: "https://evil.example" } };
    expect((await server.ask(path.user, asking)).status).toBe(204);
  });
});

describe("pages", () => {
  test("have 50 messages by default and 200 at most, and say whether there are more", async () => {
    const { user, path, ids } = await newPair(210);
    const page = async (query: string) => {
      const { body } = await server.ask(`${path.user}/messages${query}`, { user });
      const found = body.messages.map(({ id }: { id: string }) => id);
      return { from: ids.indexOf(found[0]), length: found.length, more: body.more };
    };
    expect(await page("")).toEqual({ from: 0, length: 50, more: true });
    expect(await page("?limit=1")).toEqual({ from: 0, length: 1, more: true });
    expect(await page("?limit=200")).toEqual({ from: 0, length: 200, more: true });
    expect(await page("?limit=201")).toEqual({ from: 0, length: 200, more: true });
    expect(await page("?limit=999999")).toEqual({ from: 0, length: 200, more: true });
    expect(await page(`?after=${ids[199]}&limit=200`)).toEqual({
      ...{ from: 200, length: 10, more: false },
    });
    expect(await page(`?before=${ids[200]}&limit=7`)).toEqual({ from: 193, length: 7, more: true });
    expect(await page(`?before=${ids[3]}`)).toEqual({ from: 0, length: 3, more: false });
    expect(await page("?before=0")).toEqual({ from: -1, length: 0, more: false });
    expect(await page(`?after=${ids[209]}`)).toEqual({ from: -1, length: 0, more: false });
    expect(await page("?after=999999999999999")).toEqual({ from: -1, length: 0, more: false });
  });

  test("of chats continue before the last message of the last chat", async () => {
    const user = `user ${++users}`;
    const visitors = Array.from({ length: 5 }, newVisitorId);
    for (const visitor of visitors) {
      await write(history, { user, visitor }, "x", { atMs: clock.nowMs() });
    }
    const first = await server.ask("/api/chats?limit=3", { user });
    expect(first.body.more).toBe(true);
    const before = first.body.chats[2].lastMessage.id;
    const second = await server.ask(`/api/chats?limit=3&before=${before}`, { user });
    expect(second.body.more).toBe(false);
    const peers = [first, second].flatMap(({ body }) =>
      body.chats.map(({ peer }: { peer: string }) => peer),
    );
    expect(peers).toEqual(visitors.toReversed());
  });

  test("have the messages, the read marks, and nothing else", async () => {
    const { user, visitor, path, ids } = await newPair();
    const { body, text } = await server.ask(`${path.user}/messages`, { user });
    expect(body).toEqual({
      messages: [
        {
          ...{ type: "ANON_TO_USER", id: ids[0], from: visitor, to: user, content: "0" },
          ...{ timestamp: new Date(clock.nowMs()).toISOString(), chatId: visitor },
        },
      ],
      readUpTo: { user: "0", visitor: "0" },
      more: false,
    });
    expect(text).not.toContain("127.0.0.1");
  });

  const NO_PAGES = [
    ...["limit=0", "limit=-1", "limit=", "limit=ten", "limit=1.5", "limit=1e2", "limit=0x10"],
    ...["limit=%2010", "limit=1000000", "limit=9".repeat(50), "limit=١٠", "limit[]=1&limit="],
    ...[
      "after=",
      "after=-1",
      "after=abc",
      "after=1.0",
      "after=1-0",
      "after=%2B",
      "after=$",
      "after=(",
    ],
    ...["after=1234567890123456", "after=1%00", "after=0;DROP", "before=", "before=x", "before=-"],
    ...["before=1&after=1", "limit=1&limit=2", "after=1&after=2", "before=1&before=1"],
  ];
  test.each(NO_PAGES)("malformed_request for ?%s", async (query) => {
    const { user, cookie, path } = await newPair();
    const answers = [
      await server.ask(`${path.user}/messages?${query}`, { user }),
      await server.ask(`${path.visitor}/messages?${query}`, { cookie }),
      await server.ask(`/api/chats?${query}`, { user }),
    ];
    for (const answer of answers) {
      expect(refusalOf(answer)).toEqual([400, "malformed_request"]);
    }
  });
});

describe("the chat of somebody else gets the same response as one that doesn't exist", () => {
  const WAYS: readonly (readonly [method: string, suffix: string])[] = [
    ["GET", "/messages"],
    ["HEAD", "/messages"],
    ["POST", "/read"],
    ["DELETE", ""],
  ];
  /** All that an answer tells, but for the time. */
  function seen({ status, headers, text }: Answer): unknown {
    return { status, text, headers: [...headers].filter(([name]) => name !== "date") };
  }

  test.each(WAYS)("for a user: %s /api/chats/:partner%s", async (method, suffix) => {
    const other = await newPair();
    const { user } = await newPair();
    const ask = async (peer: string) =>
      seen(await server.ask(`/api/chats/${peer}${suffix}`, { method, user }));
    const theirs = await ask(other.visitor);
    expect(theirs).toMatchObject({ status: 404 });
    const others = [
      newVisitorId(),
      encodeURIComponent(user),
      "alice",
      "*",
      "__proto__",
      "0",
      "%00",
    ];
    for (const peer of [...others, "A".repeat(5_000)]) expect(await ask(peer)).toEqual(theirs);
  });

  test.each(WAYS)("for a visitor: %s /api/chats/:partner%s", async (method, suffix) => {
    const other = await newPair();
    const { cookie } = await newPair();
    const ask = async (peer: string) =>
      seen(await server.ask(`/api/chats/${peer}${suffix}`, { method, cookie }));
    const theirs = await ask(encodeURIComponent(other.user));
    expect(theirs).toMatchObject({ status: 404 });
    for (const peer of ["nobody", other.visitor, "*", "__proto__", "%00", "a".repeat(256)]) {
      expect(await ask(peer)).toEqual(theirs);
    }
  });

  test("and stays unchanged", async () => {
    const { user, visitor, path } = await newPair(2);
    const mallory = `user ${++users}`;
    for (const [method, suffix] of WAYS) {
      await server.ask(`/api/chats/${visitor}${suffix}`, { method, user: mallory });
    }
    await server.ask(`/api/chats/${visitor}/block`, { method: "PUT", user: mallory });
    const { body } = await server.ask("/api/chats", { user });
    expect(body.chats).toMatchObject([{ peer: visitor, unread: 2, blocked: false }]);
    const page = await server.ask(`${path.user}/messages`, { user });
    expect(page.body).toMatchObject({ readUpTo: { user: "0", visitor: "0" } });
  });
});

describe("a chat", () => {
  test("marked as read: both sides' sockets get READ, and nothing is unread", async () => {
    const { user, cookie, visitor, path, ids } = await newPair(3);
    await using theirs = await server.openVisitor(cookie);
    await using mine = await server.openUser(user);
    const answer = await server.ask(`${path.user}/read`, { method: "POST", user });
    expect([answer.status, answer.body]).toEqual([200, { upTo: ids[2] }]);
    const read = { type: "READ", chatId: visitor, user, by: user, upTo: ids[2] };
    expect([await theirs.next(), await mine.next()]).toEqual([read, read]);
    const { body } = await server.ask("/api/chats", { user });
    expect(body.chats).toMatchObject([{ unread: 0 }]);
    const again = await server.ask(`${path.visitor}/read`, { method: "POST", cookie });
    expect(again.body).toEqual({ upTo: ids[2] });
    expect(await mine.next()).toMatchObject({ by: visitor });
  });

  test("deleted by either side is gone for both", async () => {
    for (const side of ["user", "visitor"] as const) {
      const { user, cookie, path } = await newPair(3);
      const asking = side === "user" ? { user } : { cookie };
      const answer = await server.ask(path[side], { method: "DELETE", ...asking });
      expect([answer.status, answer.text]).toEqual([204, ""]);
      expect((await server.ask(path[side], { method: "DELETE", ...asking })).status).toBe(404);
      expect((await server.ask(`${path.user}/messages`, { user })).status).toBe(404);
      expect((await server.ask(`${path.visitor}/messages`, { cookie })).status).toBe(404);
      expect((await server.ask("/api/chats", { user })).body).toEqual({ chats: [], more: false });
      expect((await server.ask("/api/chats", { cookie })).body).toEqual({ chats: [], more: false });
    }
  });

  test("deleted by either side is gone at once in every tab of both, and begins anew with a message", async () => {
    for (const side of ["user", "visitor"] as const) {
      const { user, cookie, visitor, path, ids } = await newPair(3);
      const tabs = await Promise.all([
        ...[server.openUser(user), server.openUser(user)],
        ...[server.openVisitor(cookie), server.openVisitor(cookie)],
      ]);
      const asking = side === "user" ? { user } : { cookie };
      await server.ask(path[side], { method: "DELETE", ...asking });
      await server.ask(path[side], { method: "DELETE", ...asking });
      tabs[2]?.send({ type: "ANON_TO_USER", to: user, content: "again" });
      for (const tab of tabs) {
        const deleted = { type: "DELETED", chatId: visitor, user, upTo: ids[2] };
        const frames = [
          await tab.next(({ type }) => type !== "ACK"),
          await tab.next(({ type }) => type !== "ACK"),
        ];
        expect(frames).toMatchObject([deleted, { content: "again" }]);
        await tab[Symbol.asyncDispose]();
      }
    }
  });

  test("with a blocked visitor says so in the user's tabs when it changes, and nothing to the visitor", async () => {
    const { user, cookie, visitor, path } = await newPair();
    await using theirs = await server.openVisitor(cookie);
    const tabs = [await server.openUser(user), await server.openUser(user)];
    for (const method of ["PUT", "PUT", "DELETE", "DELETE"]) {
      await server.ask(`${path.user}/block`, { method, user });
    }
    await server.ask(`${path.user}/read`, { method: "POST", user });
    for (const tab of tabs) {
      expect([await tab.next(), await tab.next(), await tab.next()]).toMatchObject([
        { type: "BLOCKED", chatId: visitor, user, blocked: true },
        { type: "BLOCKED", chatId: visitor, user, blocked: false },
        { type: "READ" },
      ]);
      await tab[Symbol.asyncDispose]();
    }
    await theirs.next(({ type }) => type === "READ");
    expect(theirs.frames).toHaveLength(1);
  });

  test("with a blocked visitor, until the block is lifted", async () => {
    const { user, cookie, visitor, path } = await newPair();
    await using socket = await server.openVisitor(cookie);
    const say = async (ref: string) => {
      socket.send({ type: "ANON_TO_USER", to: user, content: "Let me in", ref });
      return socket.next((frame) => frame.ref === ref);
    };
    for (let round = 0; round < 2; round++) {
      const answer = await server.ask(`${path.user}/block`, { method: "PUT", user });
      expect([answer.status, answer.text]).toEqual([204, ""]);
    }
    expect(await say("1")).toMatchObject({ type: "ERROR", code: "blocked" });
    const { body } = await server.ask("/api/chats", { user });
    expect(body.chats).toMatchObject([{ peer: visitor, unread: 1, blocked: true }]);
    const theirs = await server.ask("/api/chats", { cookie });
    expect(theirs.body.chats[0]).not.toHaveProperty("blocked");
    for (let round = 0; round < 2; round++) {
      const answer = await server.ask(`${path.user}/block`, { method: "DELETE", user });
      expect(answer.status).toBe(204);
    }
    expect(await say("1")).toMatchObject({ type: "ACK" });
  });

  test("can't be blocked by a visitor", async () => {
    const { user, cookie, path } = await newPair();
    for (const method of ["PUT", "DELETE"]) {
      for (const peer of [path.visitor, path.user, "/api/chats/nobody"]) {
        const answer = await server.ask(`${peer}/block`, { method, cookie });
        expect(refusalOf(answer)).toEqual([404, "not_found"]);
      }
    }
    expect((await server.ask("/api/chats", { user })).body.chats[0].blocked).toBe(false);
  });

  const AWKWARD_USERS = [
    "a/b",
    "a%2Fb",
    "100%",
    "a?b#c",
    "a b+c",
    "é",
    "e\u0301",
    "..a",
    "a\\b",
    "*",
    ":",
  ];
  test.each(AWKWARD_USERS)("with a user whose id is special in paths: %s", async (user) => {
    const cookie = await server.visitorCookie();
    await write(history, { user, visitor: visitorIdOf(cookie) }, user, { atMs: clock.nowMs() });
    const path = `/api/chats/${encodeURIComponent(user)}`;
    const { body } = await server.ask(`${path}/messages`, { cookie });
    expect(body.messages).toMatchObject([{ content: user, to: user }]);
    expect((await server.ask(path, { method: "DELETE", cookie })).status).toBe(204);
  });
});

describe("methods", () => {
  const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
  const ROUTES: readonly (readonly [path: string, allow: string])[] = [
    ["/api/chats", "GET, HEAD"],
    ["/messages", "GET, HEAD"],
    ["/read", "POST"],
    ["/block", "PUT, DELETE"],
    ["", "DELETE"],
  ];
  test.each(ROUTES)("%s allows %s and names them for all others", async (suffix, allow) => {
    const { user, visitor } = await newPair();
    const path = suffix.startsWith("/api") ? suffix : `/api/chats/${visitor}${suffix}`;
    for (const method of METHODS) {
      if (allow.split(", ").includes(method)) continue;
      const answer = await server.ask(path, { method, user });
      expect([method, answer.status, answer.headers.get("allow")]).toEqual([method, 405, allow]);
    }
    for (const method of allow.split(", ")) {
      const answer = await server.ask(path, { method, user });
      expect([method, answer.status < 300]).toEqual([method, true]);
    }
  });

  test.each(["/api/chats/x/y", "/api/chats/x/messages/1", "/api/chats/x/Block"])(
    "not_found at %s",
    async (path) => {
      expect(refusalOf(await server.ask(path, { user: "alice" }))).toEqual([404, "not_found"]);
    },
  );
});

describe("CORS", () => {
  async function withFriend(run: (friendly: TestServer) => Promise<void>): Promise<void> {
    await using friendly = startServer({ origins: [FRIEND] });
    await run(friendly);
  }
  const cors = ({ headers }: Answer) =>
    [...headers].filter(([name]) => name.startsWith("access-control-"));

  test("an allowed origin may send the cookie, and read the response", () =>
    withFriend(async (friendly) => {
      const asking = { cookie: await friendly.visitorCookie(), headers: { Origin: FRIEND } };
      const answer = await friendly.ask("/api/chats", asking);
      expect(answer.status).toBe(200);
      expect(answer.headers.get("access-control-allow-origin")).toBe(FRIEND);
      expect(answer.headers.get("access-control-allow-credentials")).toBe("true");
      expect(answer.headers.get("vary")).toContain("Origin");
      const refused = await friendly.ask("/api/chats", { headers: { Origin: FRIEND } });
      expect(refused.status).toBe(401);
      expect(refused.headers.get("access-control-allow-origin")).toBe(FRIEND);
    }));

  test("an allowed origin gets a preflight response", () =>
    withFriend(async (friendly) => {
      const headers = {
        Origin: FRIEND,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization",
      };
      const answer = await friendly.ask("/api/chats/x/block", { method: "OPTIONS", headers });
      expect(answer.status).toBe(204);
      expect(answer.headers.get("access-control-allow-origin")).toBe(FRIEND);
      expect(answer.headers.get("access-control-allow-methods")).toBe("GET,POST,PUT,DELETE");
      expect(answer.headers.get("access-control-allow-headers")).toContain("Authorization");
      expect(answer.headers.get("access-control-allow-credentials")).toBe("true");
    }));

  test.each(["https://evil.example", "null", `${FRIEND}.evil.example`, "HTTPS://friend.example"])(
    "%s gets no CORS headers",
    (origin) =>
      withFriend(async (friendly) => {
        const token = { user: "alice", headers: { Origin: origin } } satisfies Asking;
        const asked = await friendly.ask("/api/chats", token);
        const preflight = await friendly.ask("/api/chats", {
          method: "OPTIONS",
          headers: { Origin: origin, "Access-Control-Request-Method": "GET" },
        });
        expect([...cors(asked), ...cors(preflight)]).toEqual([]);
        expect(asked.headers.get("vary")).toContain("Origin");
        expect(preflight.status).toBeGreaterThanOrEqual(400);
      }),
  );
});

describe("when the history fails", () => {
  /** A history of which some methods fail until `heal`. */
  function failing(fails: (name: keyof ChatHistory) => boolean) {
    const inner = sqliteChatHistory({ path: ":memory:", clock });
    let isDown = true;
    const history = new Proxy(inner, {
      get(target, name: keyof ChatHistory) {
        if (!isDown || !fails(name)) return target[name];
        return async () => {
          throw new Error("disk on fire: c4nary");
        };
      },
    });
    return { history, heal: () => void (isDown = false) };
  }

  test.each<[string, (name: keyof ChatHistory) => boolean]>([
    ["chats", (name) => !["start", "close", "spendRequests"].includes(name)],
    ["the count of requests", (name) => name === "spendRequests"],
  ])(
    "with %s, every route answers 503 with Retry-After; afterwards all is well",
    async (_, fails) => {
      const { history, heal } = failing(fails);
      await using broken = startServer({ history, clock });
      const cookie = await broken.visitorCookie();
      const peer = `/api/chats/${visitorIdOf(cookie)}`;
      const asked = async () => [
        await broken.ask("/api/chats", { user: "alice" }),
        await broken.ask("/api/chats", { cookie }),
        await broken.ask(`${peer}/messages`, { user: "alice" }),
        await broken.ask("/api/chats/alice/messages", { cookie }),
        await broken.ask(`${peer}/read`, { method: "POST", user: "alice" }),
        await broken.ask(peer, { method: "DELETE", user: "alice" }),
        await broken.ask(`${peer}/block`, { method: "PUT", user: "alice" }),
        await broken.ask(`${peer}/block`, { method: "DELETE", user: "alice" }),
      ];
      for (const answer of await asked()) {
        expect(refusalOf(answer)).toEqual([503, "store_unavailable"]);
        expect(answer.headers.get("retry-after")).toBe("2");
        expect(answer.headers.get("cache-control")).toBe("no-store");
        expect(answer.text).not.toContain("c4nary");
      }
      const fromPage = await broken.ask("/api/chats", { cookie });
      expect(fromPage.headers.get("access-control-allow-origin")).toBe(broken.origin);
      expect(broken.logLines.filter((line) => line.includes('"chat_failed"'))).toHaveLength(9);
      expect(broken.logLines.join("")).not.toContain("c4nary");
      heal();
      expect((await asked()).map(({ status }) => status)).toEqual([
        ...[200, 200, 404, 404, 404, 404, 404, 204],
      ]);
    },
  );
});

test("every response has the security headers", async () => {
  const { user, path } = await newPair();
  for (const where of ["/api/chats", `${path.user}/messages`, "/api/chats/x/messages"]) {
    const { headers } = await server.ask(where, { user });
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("referrer-policy")).toBe("no-referrer");
  }
});
