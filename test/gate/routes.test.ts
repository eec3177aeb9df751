import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/gate/routes.ts";
import { createDeps, type Deps, type DepsOptions } from "../../src/gate/gate.ts";
import { REFUSAL_CODES, refuse, refusalResponse } from "../../src/request/refusal.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { signToken } from "../../src/gate/token.ts";
import { fakeClock } from "../support/clock.ts";
import { sendRaw } from "../support/raw.ts";
import { SESSION_SECRET, startServer, TOKEN_SECRET } from "../support/server.ts";

const TICKETS = "/api/auth/ws-ticket";
const SESSIONS = "/api/auth/anonymous-session";
const SIGN_OUT = "/api/auth/sign-out";
const DEMO = "/api/demo/token";
const ADMIN_TOKEN = "an-admin-token-of-the-tests-own-0123456789";
const EVIL = "https://evil.example";

const brokenStore: TicketStore = {
  ...memoryTicketStore(),
  put: () => Promise.reject(new Error("canary-7f3a in a message")),
  take: () => Promise.reject(new Error("canary-7f3a in a message")),
};

/** The app without a server around it, as a serverless platform calls it. */
function appOf(options: Partial<DepsOptions> = {}, overrides: Partial<Deps> = {}) {
  const lines: string[] = [];
  const clock = options.clock ?? fakeClock();
  const deps = createDeps({
    keys: { secret: TOKEN_SECRET },
    sessionSecret: SESSION_SECRET,
    log: (level, event, fields) => void lines.push(JSON.stringify({ level, event, ...fields })),
    ...options,
    clock,
  });
  const app = createApp({ ...deps, ...overrides });
  const ask = (path: string, init?: RequestInit, base = "http://127.0.0.1:3000") =>
    Promise.resolve(app.fetch(new Request(`${base}${path}`, init)));
  return { ask, lines, clock };
}

function tokenOf(user = "alice"): Promise<string> {
  return signToken({ secret: TOKEN_SECRET, user, expiresAtMs: fakeClock().nowMs() + 3_600_000 });
}

async function bearer(user?: string): Promise<Record<string, string>> {
  return { Authorization: `Bearer ${await tokenOf(user)}` };
}

async function expectRefusal(answer: Response, status: number, code: string): Promise<void> {
  const body = (await answer.json()) as Record<string, unknown>;
  expect([answer.status, body.code, body.status]).toEqual([status, code, status]);
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(Object.keys(body)).toEqual(["type", "status", "code", "detail"]);
}

function expectHeaders(headers: Headers): void {
  expect(headers.get("cache-control")).toBe("no-store");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("referrer-policy")).toBe("no-referrer");
  expect(headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
  for (const name of ["server", "x-powered-by"]) expect(headers.has(name)).toBe(false);
}

const signDemoToken = (user: string) => tokenOf(user);

describe("methods", () => {
  const methods = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "LOCK",
  ];
  test.each<[string, string, string[]]>([
    [TICKETS, "POST", ["POST"]],
    [SESSIONS, "POST", ["POST"]],
    [SIGN_OUT, "POST", ["POST"]],
    ["/api/admin/identities/alice/sockets", "DELETE", ["DELETE"]],
    [DEMO, "POST", ["POST"]],
    ["/healthz", "GET, HEAD", ["GET", "HEAD"]],
    ["/readyz", "GET, HEAD", ["GET", "HEAD"]],
  ])("%s takes %s and says so to every other", async (path, allow, allowed) => {
    await using server = startServer({ signDemoToken, adminToken: ADMIN_TOKEN });
    for (const method of methods) {
      const answer = await sendRaw(
        server.port,
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
      if (allowed.includes(method)) {
        expect(answer.status).not.toBe(405);
        expect(answer.headers.get("allow")).toBeNull();
      } else {
        expect([method, answer.status]).toEqual([method, 405]);
        expect(answer.headers.get("allow")).toBe(allow);
        if (method !== "HEAD") expect(JSON.parse(answer.body).code).toBe("method_not_allowed");
      }
      expectHeaders(answer.headers);
    }
  });
});

describe("paths that lead nowhere", () => {
  test.each([
    `${TICKETS}/`,
    `${SESSIONS}/`,
    "/healthz/",
    "/readyz/",
    `/${TICKETS}`,
    "/api//auth/ws-ticket",
    "/API/AUTH/WS-TICKET",
    "/api/auth/ws-ticket.json",
    "/api/auth/ws-ticket;v=1",
    "/api/auth/ws%2Dticket",
    "/api%2Fauth%2Fws-ticket",
    "/api/auth/ws-ticket%00",
    "/api/auth/ws-ticket%20",
    "/api/auth",
    "/api",
    "/api/auth/toString",
    "/__proto__",
    "/.env",
    "/%ff",
    "/%",
    DEMO,
  ])("%s", async (path) => {
    await using server = startServer();
    for (const method of ["GET", "POST"]) {
      const answer = await sendRaw(
        server.port,
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: Bearer ${await server.token()}\r\nContent-Length: 0\r\n\r\n`,
      );
      expect([answer.status, JSON.parse(answer.body).code]).toEqual([404, "not_found"]);
      expect(answer.body).not.toContain(path);
      expectHeaders(answer.headers);
    }
  });

  test("dot segments are resolved first, whichever way they are spelled", async () => {
    await using server = startServer();
    for (const path of ["/api/x/../auth/ws-ticket", "/api/x/%2e%2E/auth/ws-ticket"]) {
      const answer = await sendRaw(
        server.port,
        `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Length: 0\r\n\r\n`,
      );
      expect([answer.status, JSON.parse(answer.body).code]).toEqual([401, "token_missing"]);
    }
  });
});

describe("a credential in the URL", () => {
  const names = [
    "token",
    "TOKEN",
    "%74oken",
    "access_token",
    "jwt",
    "anonSessionId",
    "ticket=a&token",
  ];
  test.each([
    TICKETS,
    SESSIONS,
    SIGN_OUT,
    DEMO,
    "/healthz",
    "/readyz",
    "/",
    "/nowhere",
    "/api/chats",
  ])("is refused on %s under every name", async (path) => {
    const { ask } = appOf({ signDemoToken });
    for (const name of names) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const headers = { Origin: "http://127.0.0.1:3000", ...(await bearer()) };
        const answer = await ask(`${path}?${name}=canary-7f3a`, { method, headers });
        expectHeaders(answer.headers);
        await expectRefusal(answer, 400, "credential_in_url");
      }
    }
  });

  test("two tickets are malformed, one is no matter where none is wanted", async () => {
    const { ask } = appOf();
    await expectRefusal(await ask("/healthz?ticket=a&ticket=b"), 400, "malformed_request");
    expect((await ask("/healthz?ticket=a&q=1")).status).toBe(200);
  });

  test("behind the fragment's sign nothing counts as a query, neither to the guard nor to a route", async () => {
    const { ask } = appOf();
    expect((await ask("/healthz#?token=x")).status).toBe(200);
  });
});

describe("headers on every answer", () => {
  test.each<[number, (answer: ReturnType<typeof appOf>["ask"]) => Promise<Response>]>([
    [200, async (ask) => ask(TICKETS, { method: "POST", headers: await bearer() })],
    [200, (ask) => ask("/healthz")],
    [204, (ask) => ask(SESSIONS, { method: "POST" })],
    [
      204,
      (ask) => {
        const Origin = "http://127.0.0.1:3000";
        const headers = { Origin, "Access-Control-Request-Method": "POST" };
        return ask(TICKETS, { method: "OPTIONS", headers });
      },
    ],
    [400, (ask) => ask("/healthz?token=x")],
    [401, (ask) => ask(TICKETS, { method: "POST" })],
    [403, (ask) => ask(SESSIONS, { method: "POST", headers: { Origin: EVIL } })],
    [404, (ask) => ask("/nowhere")],
    [405, (ask) => ask(TICKETS)],
    [413, (ask) => ask(TICKETS, { method: "POST", body: "x".repeat(16_385) })],
  ])("%i", async (status, request) => {
    const answer = await request(appOf().ask);
    expect(answer.status).toBe(status);
    expectHeaders(answer.headers);
    expect(answer.headers.has("strict-transport-security")).toBe(false);
  });

  test.each([
    ["a public address with https", { publicUrl: new URL("https://chat.example.com") }, undefined],
    ["https itself", {}, "https://chat.example.com"],
  ])("with %s also that it stays https", async (_, options, base) => {
    const { ask } = appOf(options);
    for (const path of ["/healthz", "/nowhere", TICKETS, "/healthz?token=x"]) {
      const answer = await ask(path, {}, base);
      expect(answer.headers.get("strict-transport-security")).toMatch(/^max-age=31536000\b/);
    }
  });

  test("a public address without https says nothing of it, even where the request came by https", async () => {
    const { ask } = appOf({ publicUrl: new URL("http://localhost:8080") });
    const answer = await ask("/healthz", {}, "https://localhost:8080");
    expect(answer.headers.has("strict-transport-security")).toBe(false);
  });

  test("each refusal has its own status and body, and the headers", async () => {
    for (const code of REFUSAL_CODES) {
      const answer = refusalResponse(refuse(code));
      expectHeaders(answer.headers);
      await expectRefusal(answer, refusalResponse(refuse(code)).status, code);
      if (answer.status === 401) expect(answer.headers.get("www-authenticate")).toBeTruthy();
      if (answer.status === 503) expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    }
  });
});

describe("bodies", () => {
  test.each<[string, number, number]>([
    ["none", 0, 200],
    ["16 KB", 16_384, 200],
    ["a byte more", 16_385, 413],
    ["a megabyte", 1_048_576, 413],
  ])("%s, with its length and in pieces", async (_, size, status) => {
    await using server = startServer();
    const head = `POST ${TICKETS} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: Bearer ${await server.token()}\r\n`;
    const body = "x".repeat(size);
    const chunks = size === 0 ? "" : `${size.toString(16)}\r\n${body}\r\n`;
    for (const request of [
      `${head}Content-Length: ${size}\r\n\r\n${body}`,
      `${head}Transfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`,
    ]) {
      const answer = await sendRaw(server.port, request);
      expect(answer.status).toBe(status);
      if (status === 413) {
        expect(JSON.parse(answer.body).code).toBe("body_too_large");
        expect(answer.headers.get("content-type")).toBe("application/problem+json");
        expectHeaders(answer.headers);
      }
    }
  });

  test("beyond a megabyte the runtime refuses them by itself, and the server goes on", async () => {
    await using server = startServer();
    const answer = await sendRaw(
      server.port,
      `POST ${TICKETS} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Length: 1048577\r\n\r\n`,
    );
    expect(answer.status).toBe(413);
    expect((await fetch(`${server.origin}/healthz`)).status).toBe(200);
  });

  test("on every route of the API", async () => {
    const { ask } = appOf({ signDemoToken });
    for (const path of [TICKETS, SESSIONS, SIGN_OUT, DEMO, "/api/nowhere"]) {
      const init = { method: "POST", body: "x".repeat(20_000) };
      await expectRefusal(await ask(path, init), 413, "body_too_large");
    }
  });
});

describe("the ticket endpoint", () => {
  test("a store that fails: 503, logged, and nothing of the failure in the answer", async () => {
    const { ask, lines } = appOf({ store: brokenStore });
    const answer = await ask(TICKETS, { method: "POST", headers: await bearer() });
    expect(answer.headers.get("retry-after")).toBe("2");
    await expectRefusal(answer, 503, "store_unavailable");
    expect(lines.join("")).toContain("store_failed");
    expect(lines.join("")).not.toContain("canary-7f3a");
  });

  test("a limit per user: beyond it 429 with the time to wait, for this user only", async () => {
    const { ask, clock } = appOf({ ticketsPerMinute: 3 });
    const mint = async (user: string) =>
      ask(TICKETS, { method: "POST", headers: await bearer(user) });
    for (let count = 0; count < 3; count++) expect((await mint("alice")).status).toBe(200);
    const refused = await mint("alice");
    expect(refused.headers.get("retry-after")).toBe("20");
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await mint("bob")).status).toBe(200);
    (clock as ReturnType<typeof fakeClock>).advance(20_000);
    expect((await mint("alice")).status).toBe(200);
    expect((await mint("alice")).status).toBe(429);
  });

  test("a limit on bad tokens per address, which neither good ones nor other addresses feel", async () => {
    const { ask } = appOf({ trustProxy: 1, ticketsPerMinute: 0 });
    const mint = (token: string, address: string) =>
      ask(TICKETS, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, "X-Forwarded-For": `10.0.0.1, ${address}` },
      });
    const token = await tokenOf();
    for (let count = 0; count < 200; count++) {
      expect((await mint(token, "192.0.2.1")).status).toBe(200);
    }
    for (let count = 0; count < 120; count++) {
      expect((await mint("bad", "192.0.2.1")).status).toBe(401);
    }
    await expectRefusal(await mint("bad", "192.0.2.1"), 429, "too_many_requests");
    expect((await mint("bad", "192.0.2.2")).status).toBe(401);
    expect((await mint(token, "192.0.2.2")).status).toBe(200);
  });
});

describe("visitors' sessions", () => {
  test.each<[string, Record<string, string>, number]>([
    ["none, as from a program", {}, 204],
    ["the server's own", { Origin: "http://127.0.0.1:3000" }, 204],
    ["a foreign one", { Origin: EVIL }, 403],
    ["null", { Origin: "null" }, 403],
    ["an empty one", { Origin: "" }, 403],
    ["its own name on another port", { Origin: "http://127.0.0.1:3001" }, 403],
    ["its own name over https", { Origin: "https://127.0.0.1:3000" }, 403],
    ["another name of this machine", { Origin: "http://localhost:3000" }, 403],
    ["its own as the start of another", { Origin: "http://127.0.0.1:3000.evil.example" }, 403],
    ["its own with a slash", { Origin: "http://127.0.0.1:3000/" }, 403],
    ["two", { Origin: `http://127.0.0.1:3000, ${EVIL}` }, 403],
    [
      "its own, but the browser says it is another site",
      { Origin: "http://127.0.0.1:3000", "Sec-Fetch-Site": "cross-site" },
      403,
    ],
  ])("an origin that is %s", async (_, headers, status) => {
    const { ask } = appOf();
    const answer = await ask(SESSIONS, { method: "POST", headers });
    expect(answer.status).toBe(status);
    expect(answer.headers.has("set-cookie")).toBe(status === 204);
    if (status === 403) await expectRefusal(answer, 403, "origin_refused");
  });

  test("are limited per address, behind a proxy by what the proxy saw", async () => {
    const { ask } = appOf({ trustProxy: 1 });
    const start = (forwarded: string) =>
      ask(SESSIONS, { method: "POST", headers: { "X-Forwarded-For": forwarded } });
    for (let count = 0; count < 60; count++) {
      expect((await start(`10.0.0.${count}, 192.0.2.1`)).status).toBe(204);
    }
    const refused = await start("10.9.9.9, 192.0.2.1");
    expect(refused.headers.has("set-cookie")).toBe(false);
    expect(refused.headers.get("retry-after")).toBe("1");
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await start("192.0.2.2")).status).toBe(204);
  });
});

describe("who may read the answers from a page (CORS)", () => {
  const allowedOrigins = ["https://app.example.com", "https://other.example.com"];
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
  };
  const granted = (answer: Response) =>
    [...answer.headers.keys()].filter((name) => name.startsWith("access-control-"));

  test.each(allowedOrigins)("%s, by name and nothing wider", async (origin) => {
    const { ask } = appOf({ allowedOrigins });
    for (const [path, credentials] of [
      [TICKETS, null],
      [SESSIONS, "true"],
    ] as const) {
      const before = await ask(path, {
        method: "OPTIONS",
        headers: { Origin: origin, ...preflight },
      });
      expect(before.status).toBe(204);
      expect(before.headers.get("access-control-allow-methods")).toBe("POST");
      expect(before.headers.get("access-control-allow-headers")).toBe("Authorization,Content-Type");
      const answers = [
        before,
        await ask(path, { method: "POST", headers: { Origin: origin, ...(await bearer()) } }),
        await ask(path, { method: "DELETE", headers: { Origin: origin } }),
        await ask(path, {
          method: "POST",
          headers: { Origin: origin, Authorization: "Bearer bad" },
        }),
      ];
      for (const answer of answers) {
        expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
        expect(answer.headers.get("access-control-allow-credentials")).toBe(credentials);
        expect(answer.headers.get("vary")).toMatch(/\borigin\b/i);
        expectHeaders(answer.headers);
      }
    }
  });

  test.each<[string, Record<string, string>]>([
    ["a foreign page", { Origin: EVIL }],
    ["a page without an origin of its own", { Origin: "null" }],
    ["a program", {}],
    ["the server's own origin, once others are named", { Origin: "http://127.0.0.1:3000" }],
    ["an allowed one in other case", { Origin: "https://APP.example.com" }],
    ["an allowed one with its default port", { Origin: "https://app.example.com:443" }],
    ["a subdomain of an allowed one", { Origin: "https://x.app.example.com" }],
    ["both allowed ones at once", { Origin: allowedOrigins.join(", ") }],
    ["all allowed ones as a list", { Origin: allowedOrigins.join(" ") }],
  ])("not %s", async (_, headers) => {
    const { ask } = appOf({ allowedOrigins });
    for (const path of [TICKETS, SESSIONS]) {
      const answers = [
        await ask(path, { method: "OPTIONS", headers: { ...headers, ...preflight } }),
        await ask(path, { method: "POST", headers: { ...headers, ...(await bearer()) } }),
        await ask(path, { method: "POST", headers: { ...headers, Authorization: "Bearer bad" } }),
        await ask(path, { method: "DELETE", headers }),
      ];
      expect(answers[0]?.status).toBe(405);
      for (const answer of answers) {
        expect(granted(answer)).toEqual([]);
        expect(answer.headers.get("vary")).toMatch(/\borigin\b/i);
        expectHeaders(answer.headers);
      }
    }
  });

  test("nobody on routes that no page of another origin needs", async () => {
    const { ask } = appOf({ allowedOrigins, signDemoToken });
    for (const path of ["/healthz", "/readyz", "/nowhere", DEMO]) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const headers = { Origin: allowedOrigins[0] as string };
        expect(granted(await ask(path, { method, headers }))).toEqual([]);
      }
    }
  });
});

describe("demo tokens", () => {
  const post = (body: string, headers: Record<string, string> = {}): RequestInit => ({
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body,
  });

  test("sign somebody in under any name", async () => {
    const { ask } = appOf({ signDemoToken });
    const { token } = (await (await ask(DEMO, post('{"name":"Ålice"}'))).json()) as {
      token: string;
    };
    const minted = await ask(TICKETS, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
    });
    expect(minted.status).toBe(200);
  });

  test("don't exist outside the demo mode", async () => {
    await expectRefusal(await appOf().ask(DEMO, post('{"name":"alice"}')), 404, "not_found");
  });

  test.each([EVIL, "null", "http://localhost:3000"])(
    "are refused to pages of %s",
    async (origin) => {
      const { ask } = appOf({ signDemoToken });
      const answer = await ask(DEMO, post('{"name":"alice"}', { Origin: origin }));
      await expectRefusal(answer, 403, "origin_refused");
    },
  );

  test.each([
    ["nothing", ""],
    ["no JSON", "name=alice"],
    ["null", "null"],
    ["a list", '["alice"]'],
    ["a string", '"alice"'],
    ["no name", "{}"],
    ["an empty name", '{"name":""}'],
    ["a number", '{"name":7}'],
    ["an object", '{"name":{}}'],
    ["a control character", '{"name":"a\\u0000"}'],
    ["half a surrogate pair", '{"name":"\\ud800"}'],
    ["a name too long", `{"name":"${"a".repeat(256)}"}`],
    ["a name in the prototype", '{"__proto__":{"name":"alice"}}'],
  ])("need a name: %s", async (_, body) => {
    const { ask } = appOf({ signDemoToken });
    await expectRefusal(await ask(DEMO, post(body)), 400, "malformed_request");
  });
});

describe("signing out", () => {
  test("ends the token's right to tickets, and nobody else's", async () => {
    const { ask } = appOf();
    const [alice, bob] = await Promise.all([bearer("alice"), bearer("bob")]);
    expect((await ask(SIGN_OUT, { method: "POST", headers: alice })).status).toBe(204);
    const refused = await ask(TICKETS, { method: "POST", headers: alice });
    await expectRefusal(refused, 401, "token_invalid");
    expect((await ask(TICKETS, { method: "POST", headers: bob })).status).toBe(200);
  });

  test.each<[string, string | undefined, number]>([
    ["none", undefined, 204],
    ["this session only", '{"everywhere":false}', 204],
    ["everywhere", '{"everywhere":true}', 204],
    ["an empty object", "{}", 204],
    ["everywhere as a string", '{"everywhere":"true"}', 400],
    ["everywhere as a number", '{"everywhere":1}', 400],
    ["null", "null", 400],
    ["no JSON", "everywhere", 400],
  ])("with a body that is %s", async (_, body, status) => {
    const { ask } = appOf();
    const init = { method: "POST", headers: await bearer(), ...(body !== undefined && { body }) };
    const answer = await ask(SIGN_OUT, init);
    expect(answer.status).toBe(status);
    if (status === 400) await expectRefusal(answer, 400, "malformed_request");
    const minted = await ask(TICKETS, { method: "POST", headers: await bearer() });
    expect(minted.status).toBe(status === 400 ? 200 : 401);
  });

  test.each<[string, Record<string, string>, string]>([
    ["no token", {}, "token_missing"],
    ["a bad token", { Authorization: "Bearer bad" }, "token_invalid"],
  ])("needs a valid token: %s", async (_, headers, code) => {
    await expectRefusal(await appOf().ask(SIGN_OUT, { method: "POST", headers }), 401, code);
  });

  test("isn't confirmed by a store that couldn't be told", async () => {
    const revoke = () => Promise.reject(new Error("canary-7f3a"));
    const { ask, lines } = appOf({ store: { ...memoryTicketStore(), revoke } });
    const answer = await ask(SIGN_OUT, { method: "POST", headers: await bearer() });
    await expectRefusal(answer, 503, "store_unavailable");
    expect(lines.join("")).not.toContain("canary-7f3a");
  });
});

describe("the operator's way to end somebody's sockets", () => {
  const path = "/api/admin/identities/alice/sockets";
  const remove = (token: string) => ({
    method: "DELETE",
    headers: { Authorization: `Bearer ${token}` },
  });

  test("doesn't exist without a token of the operator's", async () => {
    await expectRefusal(await appOf().ask(path, remove(ADMIN_TOKEN)), 404, "not_found");
  });

  test("takes that token and no other", async () => {
    const { ask } = appOf({ adminToken: ADMIN_TOKEN });
    const others = [`${ADMIN_TOKEN}x`, ADMIN_TOKEN.slice(1), ADMIN_TOKEN.toUpperCase(), "x"];
    for (const token of [...others, await tokenOf("alice")]) {
      await expectRefusal(await ask(path, remove(token)), 401, "token_invalid");
    }
    await expectRefusal(await ask(path, { method: "DELETE" }), 401, "token_missing");
    const minted = await ask(TICKETS, { method: "POST", headers: await bearer() });
    expect(minted.status).toBe(200);
    expect((await ask(path, remove(ADMIN_TOKEN))).status).toBe(204);
  });

  test("the operator's token is nobody's", async () => {
    const { ask } = appOf({ adminToken: ADMIN_TOKEN });
    const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
    await expectRefusal(await ask(TICKETS, { method: "POST", headers }), 401, "token_invalid");
  });
});

describe("health", () => {
  test("/healthz answers while the process lives, whatever the store does", async () => {
    const { ask } = appOf({ store: brokenStore }, { isDraining: () => true });
    expect((await ask("/healthz")).status).toBe(200);
    expect(await (await ask("/healthz", { method: "HEAD" })).text()).toBe("");
  });

  test("/readyz: 200 with a store that answers", async () => {
    const answer = await appOf().ask("/readyz");
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual({ status: "ok" });
  });

  test("/readyz: 503 with a store that fails, and 200 again once it has recovered", async () => {
    const memory = memoryTicketStore();
    let fails = true;
    const store = {
      ...memory,
      take: (hash: string) => (fails ? brokenStore.take(hash) : memory.take(hash)),
    };
    const { ask, lines, clock } = appOf({ store });
    await expectRefusal(await ask("/readyz"), 503, "store_unavailable");
    expect(lines.join("")).not.toContain("canary-7f3a");
    fails = false;
    (clock as ReturnType<typeof fakeClock>).advance(1_000);
    expect((await ask("/readyz")).status).toBe(200);
  });

  test("/readyz: 503 while the server drains", async () => {
    const { ask } = appOf({}, { isDraining: () => true });
    await expectRefusal(await ask("/readyz"), 503, "shutting_down");
  });

  test("/readyz asks the store once a second at most, however often it is asked", async () => {
    let asked = 0;
    const store = { ...memoryTicketStore(), take: async () => void asked++ };
    const { ask, clock } = appOf({ store: store as unknown as TicketStore });
    await Promise.all(Array.from({ length: 50 }, () => ask("/readyz")));
    expect(asked).toBe(1);
    (clock as ReturnType<typeof fakeClock>).advance(999);
    await ask("/readyz");
    expect(asked).toBe(1);
    (clock as ReturnType<typeof fakeClock>).advance(1);
    await ask("/readyz");
    expect(asked).toBe(2);
  });

  test("/readyz with a store that hangs: 503 within 2 s", async () => {
    const store = { ...memoryTicketStore(), take: () => new Promise<never>(() => {}) };
    const { ask } = appOf({ store });
    const startedMs = performance.now();
    await expectRefusal(await ask("/readyz"), 503, "store_unavailable");
    expect(performance.now() - startedMs).toBeLessThan(2_200);
  });
});

describe("what breaks inside stays inside", () => {
  const boom = () => {
    throw Object.assign(new Error("canary-7f3a at /srv/app.ts"), { code: "EBOOM" });
  };

  test.each<[string, Partial<Deps>, string, RequestInit]>([
    [
      "a verifier that throws",
      { verifyToken: boom },
      TICKETS,
      { method: "POST", headers: { Authorization: "Bearer a.b.c" } },
    ],
    [
      "a verifier that rejects",
      { verifyToken: async () => boom() },
      TICKETS,
      { method: "POST", headers: { Authorization: "Bearer a.b.c" } },
    ],
    ["a source of randomness that throws", { randomBytes: boom }, TICKETS, { method: "POST" }],
    [
      "sessions that throw",
      { visitors: { issue: boom, read: boom } },
      SESSIONS,
      { method: "POST" },
    ],
    ["a draining flag that throws", { isDraining: boom }, "/readyz", {}],
    [
      "a signer that throws",
      { signDemoToken: boom },
      DEMO,
      { method: "POST", body: '{"name":"alice"}' },
    ],
  ])("%s", async (_, overrides, path, init) => {
    const { ask, lines } = appOf({}, overrides);
    const headers = { ...(await bearer()), ...(init.headers as Record<string, string>) };
    const answer = await ask(path, { ...init, headers });
    expectHeaders(answer.headers);
    const text = await answer.clone().text();
    expect(text).not.toMatch(/canary|srv|EBOOM|Error/);
    await expectRefusal(answer, 500, "internal_error");
    expect(lines).toEqual(['{"level":"error","event":"request_failed","code":"EBOOM"}']);
  });

  test("through a server, too, and the next request is served", async () => {
    const store = { ...memoryTicketStore(), put: boom as () => never };
    await using server = startServer({ store });
    const answer = await server.mint(await server.token());
    expect([500, 503]).toContain(answer.status);
    expect(await answer.text()).not.toContain("canary-7f3a");
    expect(server.logLines.join("")).not.toContain("canary-7f3a");
    expect((await fetch(`${server.origin}/healthz`)).status).toBe(200);
  });
});

test.each<[string, Partial<DepsOptions>]>([
  ["token secret", { keys: { secret: TOKEN_SECRET.slice(0, 31) } }],
  ["token secret", { keys: { secret: new Uint8Array() } }],
  ["session secret", { sessionSecret: SESSION_SECRET.slice(0, 31) }],
])("a %s that is too short starts nothing, and isn't shown", (_, options) => {
  expect(() => appOf(options)).toThrow(/too short: 32 bytes are the least$/);
});

test("a request that makes no URL is malformed", async () => {
  await using server = startServer();
  for (const host of ["user@127.0.0.1", "a b", "127.0.0.1:99999", "127.0.0.1/x"]) {
    const answer = await sendRaw(
      server.port,
      `GET /healthz HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`,
    );
    expect([host, answer.status]).toEqual([host, 400]);
    expect(answer.text).not.toContain(host);
  }
});
