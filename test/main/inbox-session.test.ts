import { describe, expect, test } from "bun:test";
import { openSocket } from "../support/socket.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Answer, Asking } from "../support/people.ts";

const SESSION = "/inbox/api/session";
const TICKET = "/inbox/api/auth/ws-ticket";
const SIGN_OUT = "/inbox/api/auth/sign-out";
const CHATS = "/inbox/api/chats";
const EVIL = "https://evil.example";

/** `name=value` of the inbox's cookie in an answer. */
function cookieIn(answer: Pick<Answer, "headers">): string {
  return answer.headers.get("set-cookie")?.split(";")[0] ?? "";
}

/** Exchanges a JWT with these claims, and returns the cookie. */
async function open(server: TestServer, user = "alice", claims: object = { sid: "laptop" }) {
  const token = await server.token(user, {
    claims: { iat: server.clock.nowMs() / 1000, ...claims },
  });
  const answer = await server.ask(SESSION, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}` },
  });
  expect(answer.status).toBe(204);
  return cookieIn(answer);
}

/** A visitor who has written to `user`. */
async function writeTo(server: TestServer, user: string): Promise<void> {
  await using visitor = await server.openVisitor();
  visitor.send({ type: "ANON_TO_USER", to: user, content: "Hello" });
  await visitor.next(({ type }) => type === "ACK");
}

describe("exchanging a JWT for the inbox's cookie", () => {
  test("lets the inbox list chats, mint tickets and open sockets, without a token in a script", async () => {
    await using server = startServer();
    await writeTo(server, "alice");
    const cookie = await open(server);
    const me = await server.ask(SESSION, { cookie });
    expect(me.body).toEqual({ user: "alice", expiresInSeconds: 3600 });
    const chats = await server.ask(CHATS, { cookie });
    expect(chats.body.chats).toMatchObject([{ unread: 1, lastMessage: { content: "Hello" } }]);
    const minted = await server.ask(TICKET, { method: "POST", cookie });
    expect(minted.status).toBe(200);
    const url = `${server.origin.replace("http", "ws")}/inbox/ws/chat?ticket=${minted.body.ticket}`;
    await using socket = openSocket(url, { Origin: server.origin });
    await socket.opened;
    expect(server.logLines.join("")).toContain('"user":"alice"');
  });

  test("is nobody's session before, and after the JWT's end", async () => {
    await using server = startServer();
    expect((await server.ask(SESSION, { cookie: "" })).body).toEqual({ user: null });
    const cookie = await open(server);
    await server.clock.advance(3_600_000);
    expect((await server.ask(SESSION, { cookie })).body).toEqual({ user: null });
    for (const [path, method] of [
      [TICKET, "POST"],
      [CHATS, "GET"],
      [SIGN_OUT, "POST"],
    ] as const) {
      const { status, body } = await server.ask(path, { method, cookie });
      expect([status, body.code]).toEqual([401, "session_refused"]);
    }
  });

  test("by a form, from a page on another site, goes on to the inbox", async () => {
    const app = "https://app.example";
    await using server = startServer({ origins: [app] });
    const post = (Origin: string | undefined, fields: [string, string][]) =>
      fetch(server.origin + SESSION, {
        method: "POST",
        redirect: "manual",
        headers: Origin === undefined ? {} : { Origin },
        body: new URLSearchParams(fields),
      });
    const token = await server.token("alice");
    const opened = await post(app, [["token", token]]);
    expect([opened.status, opened.headers.get("location")]).toEqual([303, "/inbox"]);
    expect(cookieIn(opened)).toStartWith("inboxSession=v1.");
    for (const origin of [EVIL, "null", undefined, server.origin]) {
      const { status, headers } = await post(origin, [["token", token]]);
      expect([status, headers.has("set-cookie")]).toEqual([403, false]);
    }
    expect((await post(app, [])).status).toBe(401);
    expect((await post(app, [["token", "x"]])).status).toBe(401);
    expect(
      (
        await post(app, [
          ["token", token],
          ["token", token],
        ])
      ).status,
    ).toBe(400);
    expect((await post(app, [["token", "x".repeat(20_000)]])).status).toBe(413);
    // More fields than any such form has would take milliseconds to read.
    const fields = (count: number) =>
      Array.from({ length: count }, (_, n): [string, string] => [`field ${n}`, "x"]);
    expect((await post(app, [...fields(15), ["token", token]])).status).toBe(303);
    expect((await post(app, [...fields(16), ["token", token]])).status).toBe(400);
  });

  test.each<[string, (server: TestServer) => Promise<Asking>, number, string]>([
    ["no token", async () => ({}), 401, "token_missing"],
    [
      "a bad token",
      async () => ({ headers: { Authorization: "Bearer a.b.c" } }),
      401,
      "token_invalid",
    ],
    [
      "a bad header beside a good form",
      async () => ({
        headers: {
          Authorization: "Basic YTpi",
          "Content-Type": "application/x-www-form-urlencoded",
        },
      }),
      401,
      "token_missing",
    ],
    [
      "a good token from a foreign page",
      async (server) => ({
        headers: { Authorization: `Bearer ${await server.token()}`, Origin: EVIL },
      }),
      403,
      "origin_refused",
    ],
    [
      "a cookie in place of a token",
      async (server) => ({ cookie: await open(server) }),
      401,
      "token_missing",
    ],
  ])("is refused with %s", async (_, asking, status, code) => {
    await using server = startServer();
    const answer = await server.ask(SESSION, { method: "POST", ...(await asking(server)) });
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(answer.headers.has("set-cookie")).toBe(false);
  });

  test("happens at most 60 times a minute for one user", async () => {
    await using server = startServer();
    const headers = { Authorization: `Bearer ${await server.token()}` };
    for (let at = 0; at < 60; at++) await server.ask(SESSION, { method: "POST", headers });
    expect((await server.ask(SESSION, { method: "POST", headers })).status).toBe(429);
    const other = { Authorization: `Bearer ${await server.token("bob")}` };
    expect((await server.ask(SESSION, { method: "POST", headers: other })).status).toBe(204);
  });

  test("logs no token and no cookie", async () => {
    await using server = startServer();
    const cookie = await open(server);
    const value = cookie.slice(cookie.indexOf("=") + 1);
    for (const part of value.split(".").slice(1)) {
      expect(server.logLines.join("")).not.toContain(part);
    }
  });
});

describe("the inbox's cookie counts", () => {
  test.each<[string, Record<string, string | null>, boolean]>([
    ["from the server's own page", {}, true],
    [
      "without Origin, where the browser says it is the same origin",
      { Origin: null, "Sec-Fetch-Site": "same-origin" },
      true,
    ],
    ["without Origin, from who knows where", { Origin: null }, false],
    ["without Origin, from the same site", { Origin: null, "Sec-Fetch-Site": "same-site" }, false],
    ["for a navigation", { Origin: null, "Sec-Fetch-Site": "none" }, false],
    ["from a foreign page", { Origin: EVIL }, false],
    ["from a page without an origin", { Origin: "null" }, false],
    ["where the browser says that it is another site", { "Sec-Fetch-Site": "cross-site" }, false],
  ])("%s", async (_, headers, counts) => {
    await using server = startServer();
    await writeTo(server, "alice");
    const cookie = await open(server);
    const asks: [string, string][] = [
      [CHATS, "GET"],
      [TICKET, "POST"],
      [SIGN_OUT, "POST"],
    ];
    for (const [path, method] of asks) {
      const { status } = await server.ask(path, { method, cookie, headers });
      expect(status).toBe(counts ? (path === SIGN_OUT ? 204 : 200) : 403);
    }
  });

  test("from no other allowed origin", async () => {
    const app = "https://app.example";
    await using server = startServer({
      origins: [app, "https://chat.example"],
      publicUrl: "https://chat.example",
    });
    const token = await server.token();
    const opened = await server.ask(SESSION, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, Origin: app },
    });
    expect(opened.headers.get("access-control-allow-origin")).toBe(app);
    const cookie = cookieIn(opened);
    expect(cookie).toStartWith("__Host-inboxSession=");
    const from = (Origin: string) =>
      server.ask(TICKET, { method: "POST", cookie, headers: { Origin } });
    expect((await from("https://chat.example")).status).toBe(200);
    expect((await from(app)).body.code).toBe("origin_refused");
  });

  test("only below /inbox, where the visitor's cookie doesn't", async () => {
    await using server = startServer({ embedded: true });
    await writeTo(server, "alice");
    const user = await open(server);
    const visitor = await server.visitorCookie();
    const both = `${user}; ${visitor}`;
    const elsewhere: [string, string, string, string][] = [
      ["/api/auth/ws-ticket", "POST", user, "token_missing"],
      ["/api/chats", "GET", user, "session_refused"],
      ["/embed/api/chats", "GET", both, "session_refused"],
      ["/api/auth/sign-out", "POST", both, "token_missing"],
      [CHATS, "GET", visitor, "session_refused"],
      [TICKET, "POST", visitor, "session_refused"],
      ["/inbox/api/auth/anonymous-session", "POST", both, "not_found"],
      ["/inbox/api/admin/identities/alice/sockets", "DELETE", both, "not_found"],
    ];
    for (const [path, method, cookie, code] of elsewhere) {
      expect([path, (await server.ask(path, { method, cookie })).body.code]).toEqual([path, code]);
    }
    // With both cookies the path alone says who it is.
    expect((await server.ask(CHATS, { cookie: both })).body.chats).toHaveLength(1);
    expect((await server.ask("/api/chats", { cookie: both })).body.chats).toHaveLength(0);
  });

  test("never where there is an Authorization header, good or bad", async () => {
    await using server = startServer();
    await writeTo(server, "alice");
    const cookie = await open(server);
    const chatsOf = (Authorization: string) =>
      server.ask(CHATS, { cookie, headers: { Authorization } });
    expect((await chatsOf(`Bearer ${await server.token("bob")}`)).body.chats).toEqual([]);
    expect((await chatsOf("Bearer a.b.c")).body.code).toBe("token_invalid");
    expect((await chatsOf("Basic YTpi")).body.code).toBe("token_missing");
    expect((await chatsOf("")).status).toBe(401);
  });

  test("opens no socket by itself", async () => {
    await using server = startServer();
    const cookie = await open(server);
    const socket = openSocket(`${server.origin.replace("http", "ws")}/inbox/ws/chat`, {
      Origin: server.origin,
      Cookie: `${cookie}; ${await server.visitorCookie()}`,
    });
    expect(socket.opened).rejects.toThrow();
    await socket.opened.catch(() => {});
    expect(server.logLines.at(-1)).toContain("session_refused");
  });
});

describe("the inbox's session ends", () => {
  /** What the session may still do. */
  async function works(server: TestServer, cookie: string): Promise<boolean> {
    const minted = await server.ask(TICKET, { method: "POST", cookie });
    const chats = await server.ask(CHATS, { cookie });
    const me = await server.ask(SESSION, { cookie });
    const all = [minted.status === 200, chats.status === 200, me.body.user !== null];
    expect(new Set(all).size).toBe(1);
    return all[0] as boolean;
  }

  test("by signing out there, which removes the cookie and ends the JWT, too, and no other session", async () => {
    await using server = startServer();
    const [laptop, phone] = [await open(server), await open(server, "alice", { sid: "phone" })];
    const { status, headers } = await server.ask(SIGN_OUT, { method: "POST", cookie: laptop });
    expect(status).toBe(204);
    expect(headers.get("set-cookie")).toBe(
      "inboxSession=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0",
    );
    expect(await works(server, laptop)).toBe(false);
    expect(await works(server, phone)).toBe(true);
  });

  test("by signing out with the JWT elsewhere", async () => {
    await using server = startServer();
    const cookie = await open(server);
    const token = await server.token("alice", { claims: { sid: "laptop" } });
    const headers = { Authorization: `Bearer ${token}` };
    await server.ask("/api/auth/sign-out", { method: "POST", headers });
    expect(await works(server, cookie)).toBe(false);
    expect((await server.ask(SESSION, { method: "POST", headers })).body.code).toBe(
      "token_invalid",
    );
  });

  test("by a kick, with its sockets", async () => {
    await using server = startServer();
    const cookie = await open(server);
    const { body } = await server.ask(TICKET, { method: "POST", cookie });
    const url = `${server.origin.replace("http", "ws")}/inbox/ws/chat?ticket=${body.ticket}`;
    await using socket = openSocket(url, { Origin: server.origin });
    await socket.opened;
    await server.gate.revoke({ user: "alice" });
    expect((await socket.closed).code).toBe(4500);
    expect(await works(server, cookie)).toBe(false);
  });

  test("with the JWT, and so does its socket", async () => {
    await using server = startServer();
    const token = await server.token("alice", { ttlMs: 20_000 });
    const opened = await server.ask(SESSION, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    const cookie = cookieIn(opened);
    expect(opened.headers.get("set-cookie")).toContain("Max-Age=20");
    const { body } = await server.ask(TICKET, { method: "POST", cookie });
    const url = `${server.origin.replace("http", "ws")}/inbox/ws/chat?ticket=${body.ticket}`;
    await using socket = openSocket(url, { Origin: server.origin });
    await socket.opened;
    await server.clock.advance(20_000);
    expect((await socket.closed).code).toBe(4001);
    expect(await works(server, cookie)).toBe(false);
  });
});

describe("a look at whether a visitor is known", () => {
  const PATH = "/api/auth/anonymous-session";

  test("says so, and sets no cookie", async () => {
    await using server = startServer();
    const nobody = await server.ask(PATH, { cookie: "" });
    expect([nobody.body, nobody.headers.has("set-cookie")]).toEqual([{ known: false }, false]);
    const cookie = await server.visitorCookie();
    const known = await server.ask(PATH, { cookie });
    expect([known.body, known.headers.has("set-cookie")]).toEqual([{ known: true }, false]);
    await server.gate.revoke({ visitor: cookie.split(".")[1] as string });
    expect((await server.ask(PATH, { cookie })).body).toEqual({ known: false });
  });

  test("is refused to a foreign page", async () => {
    await using server = startServer();
    const cookie = await server.visitorCookie();
    const { status } = await server.ask(PATH, { cookie, headers: { Origin: EVIL } });
    expect(status).toBe(403);
  });

  test("happens at most 600 times a minute from one address", async () => {
    await using server = startServer({ trustProxy: 1 });
    const from = (address: string) => server.ask(PATH, { headers: { "X-Forwarded-For": address } });
    const answers = await Promise.all(Array.from({ length: 601 }, () => from("192.0.2.1")));
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(1);
    expect((await from("192.0.2.2")).status).toBe(200);
  });
});
