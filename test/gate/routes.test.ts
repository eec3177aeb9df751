import { describe, expect, test } from "bun:test";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { REFUSAL_CODES, refuse, refusalResponse } from "../../src/request/refusal.ts";
import { settle } from "../support/clock.ts";
import {
  BARE_ORIGIN,
  type BareGate,
  bareGate,
  expectHeaders,
  expectRefusal,
} from "../support/gate.ts";
import { HANDSHAKE, sendRaw } from "../support/raw.ts";
import { startServer } from "../support/server.ts";

const TICKETS = "/api/auth/ws-ticket";
const SESSIONS = "/api/auth/anonymous-session";
const SIGN_OUT = "/api/auth/sign-out";
const EVIL = "https://evil.example";

const brokenStore: TicketStore = {
  ...memoryTicketStore(),
  put: () => Promise.reject(new Error("canary-7f3a in a message")),
  take: () => Promise.reject(new Error("canary-7f3a in a message")),
};

describe("methods", () => {
  const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
  test.each([
    [TICKETS, "POST"],
    [SESSIONS, "GET, HEAD, POST"],
    [SIGN_OUT, "POST"],
  ])("%s takes %s, and refuses every other", async (path, allowed) => {
    await using server = startServer();
    for (const method of [...methods, "TRACE", "QUERY", "LOCK"]) {
      const answer = await sendRaw(
        server.port,
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
      if (allowed.split(", ").includes(method)) {
        expect(answer.status).not.toBe(405);
        expect(answer.headers.get("allow")).toBeNull();
      } else {
        expect([method, answer.status]).toEqual([method, 405]);
        expect(answer.headers.get("allow")).toBe(allowed);
        if (method !== "HEAD") expect(JSON.parse(answer.body).code).toBe("method_not_allowed");
      }
      expectHeaders(answer.headers);
    }
  });
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
  test.each([TICKETS, SESSIONS, SIGN_OUT, "/api/auth/nowhere"])(
    "is refused on %s under every name",
    async (path) => {
      const { send, bearer } = bareGate();
      for (const name of names) {
        for (const method of ["GET", "POST", "OPTIONS"]) {
          const headers = { Origin: BARE_ORIGIN, ...(await bearer()) };
          const response = await send(`${path}?${name}=canary-7f3a`, { method, headers });
          expectHeaders(response.headers);
          await expectRefusal(response, 400, "credential_in_url");
        }
      }
    },
  );

  test("two tickets are malformed, one doesn't matter where none is needed", async () => {
    const { send, bearer } = bareGate();
    const post = { method: "POST", headers: await bearer() };
    await expectRefusal(await send(`${TICKETS}?ticket=a&ticket=b`, post), 400, "malformed_request");
    expect((await send(`${TICKETS}?ticket=a&q=1`, post)).status).toBe(200);
  });

  test("is none behind the sign of a fragment, where no route reads a query either", async () => {
    const { send, bearer } = bareGate();
    const post = { method: "POST", headers: await bearer() };
    expect((await send(`${TICKETS}#?token=x`, post)).status).toBe(200);
  });
});

describe("headers on every answer", () => {
  test.each<[number, (gate: BareGate) => Promise<Response>]>([
    [200, async ({ send, bearer }) => send(TICKETS, { method: "POST", headers: await bearer() })],
    [204, ({ send }) => send(SESSIONS, { method: "POST" })],
    [204, async ({ send, bearer }) => send(SIGN_OUT, { method: "POST", headers: await bearer() })],
    [
      204,
      ({ send }) => {
        const headers = { Origin: BARE_ORIGIN, "Access-Control-Request-Method": "POST" };
        return send(TICKETS, { method: "OPTIONS", headers });
      },
    ],
    [400, ({ send }) => send(`${TICKETS}?token=x`)],
    [401, ({ send }) => send(TICKETS, { method: "POST" })],
    [403, ({ send }) => send(SESSIONS, { method: "POST", headers: { Origin: EVIL } })],
    [404, ({ send }) => send("/api/auth/nowhere")],
    [404, ({ send }) => send("/elsewhere")],
    [405, ({ send }) => send(TICKETS)],
    [413, ({ send }) => send(TICKETS, { method: "POST", body: "x".repeat(16_385) })],
  ])("%i", async (status, request) => {
    const response = await request(bareGate());
    expect(response.status).toBe(status);
    expectHeaders(response.headers);
    expect(response.headers.has("strict-transport-security")).toBe(false);
  });

  test.each([
    ["a public address with https", { publicUrl: "https://chat.example.com" }, undefined],
    ["https itself", {}, "https://chat.example.com"],
  ])("with %s also that it stays https", async (_, options, origin) => {
    const { send } = bareGate(options);
    for (const path of [TICKETS, `${TICKETS}?token=x`, "/api/auth/nowhere", "/elsewhere"]) {
      const response = await send(path, {}, origin);
      // Not for subdomains, which may have plain http of their own.
      expect(response.headers.get("strict-transport-security")).toBe("max-age=31536000");
    }
  });

  test.each<[string | false, string | null]>([
    ["max-age=60; includeSubDomains", "max-age=60; includeSubDomains"],
    [false, null],
  ])("with strictTransport %p what it says", async (strictTransport, header) => {
    const { send } = bareGate({ publicUrl: "https://chat.example.com", strictTransport });
    const response = await send(TICKETS);
    expect(response.headers.get("strict-transport-security")).toBe(header);
    expectHeaders(response.headers);
  });

  test("a public address without https has no such header, even where the request came by https", async () => {
    const { send } = bareGate({ publicUrl: "http://localhost:8080" });
    const response = await send(TICKETS, {}, "https://localhost:8080");
    expect(response.headers.has("strict-transport-security")).toBe(false);
  });

  test("each refusal has its own status and body, and the headers", async () => {
    for (const code of REFUSAL_CODES) {
      const response = refusalResponse(refuse(code));
      expectHeaders(response.headers);
      await expectRefusal(response, refusalResponse(refuse(code)).status, code);
      if (response.status === 401) expect(response.headers.get("www-authenticate")).toBeTruthy();
      if (response.status === 503)
        expect(response.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
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

  test("in more pieces than anybody sends are too large, however small they are", async () => {
    const { send, bearer } = bareGate();
    const headers = await bearer();
    const inPieces = (count: number) =>
      new ReadableStream({
        start(controller) {
          for (let n = 0; n < count; n++) controller.enqueue(new Uint8Array(1));
          controller.close();
        },
      });
    for (const [count, status] of [
      [64, 200],
      [65, 413],
    ] as const) {
      const init = { method: "POST", headers, body: inPieces(count), duplex: "half" } as const;
      expect((await send(TICKETS, init)).status).toBe(status);
    }
  });

  test("of JSON that takes long to parse are malformed", async () => {
    const { send, bearer } = bareGate();
    const nested = "[".repeat(5_000) + "]".repeat(5_000);
    for (const [extra, status] of [
      ['""', 204],
      [nested, 400],
    ]) {
      const init = { method: "POST", headers: await bearer("alice", { iat: 1 }), body: "" };
      const response = await send(SIGN_OUT, { ...init, body: `{"extra":${extra}}` });
      expect(response.status).toBe(status as number);
    }
  });

  test("on every route of the gate, signed in or not", async () => {
    const { send, bearer } = bareGate();
    for (const path of [TICKETS, SESSIONS, SIGN_OUT]) {
      for (const headers of [{}, await bearer()]) {
        const response = await send(path, { method: "POST", headers, body: "x".repeat(20_000) });
        await expectRefusal(response, 413, "body_too_large");
      }
    }
  });
});

describe("the ticket endpoint", () => {
  test("a store that fails: 503, logged, and nothing of the failure in the response", async () => {
    const { send, bearer, logLines } = bareGate({ store: brokenStore });
    const response = await send(TICKETS, { method: "POST", headers: await bearer() });
    expect(response.headers.get("retry-after")).toBe("2");
    await expectRefusal(response, 503, "store_unavailable");
    expect(logLines.join("")).toContain("store_failed");
    expect(logLines.join("")).not.toContain("canary-7f3a");
  });

  test("a store that doesn't respond: 503 at its deadline", async () => {
    const store = { ...memoryTicketStore(), put: () => new Promise<never>(() => {}) };
    const { send, bearer, clock } = bareGate({ store });
    let isAnswered = false;
    const minting = send(TICKETS, { method: "POST", headers: await bearer() }).finally(() => {
      isAnswered = true;
    });
    while (clock.delays === 0) await settle(1);
    clock.advance(DEPENDENCY_DEADLINE_MS - 1);
    await settle();
    expect(isAnswered).toBe(false);
    clock.advance(1);
    await expectRefusal(await minting, 503, "store_unavailable");
  });

  test("a limit per user: beyond it 429 with the time to wait, for this user only", async () => {
    const { send, bearer, clock } = bareGate({ ticketsPerMinute: 3 });
    const mint = async (user: string) =>
      send(TICKETS, { method: "POST", headers: await bearer(user) });
    for (let count = 0; count < 3; count++) expect((await mint("alice")).status).toBe(200);
    const refused = await mint("alice");
    expect(refused.headers.get("retry-after")).toBe("20");
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await mint("bob")).status).toBe(200);
    clock.advance(20_000);
    expect((await mint("alice")).status).toBe(200);
    expect((await mint("alice")).status).toBe(429);
  });

  test("60 tickets per user and minute, unless configured otherwise", async () => {
    const { send, bearer } = bareGate();
    const init = { method: "POST", headers: await bearer() };
    for (let count = 0; count < 60; count++) expect((await send(TICKETS, init)).status).toBe(200);
    expect((await send(TICKETS, init)).status).toBe(429);
  });

  test("a limit on bad tokens per address, which good ones don't count towards, nor other addresses", async () => {
    const { send, bearer } = bareGate({ trustProxy: 1, ticketsPerMinute: 0 });
    const good = await bearer();
    const bad = { Authorization: "Bearer bad" };
    const mint = (token: Record<string, string>, address: string) =>
      send(TICKETS, {
        method: "POST",
        headers: { ...token, "X-Forwarded-For": `10.0.0.1, ${address}` },
      });
    for (let count = 0; count < 200; count++) {
      expect((await mint(good, "192.0.2.1")).status).toBe(200);
    }
    for (let count = 0; count < 120 + 10; count++) {
      expect((await mint(bad, "192.0.2.1")).status).toBe(401);
    }
    await expectRefusal(await mint(bad, "192.0.2.1"), 429, "too_many_requests");
    for (let count = 0; count < 200; count++) {
      expect((await mint(good, "192.0.2.1")).status).toBe(200);
    }
    expect((await mint(bad, "192.0.2.2")).status).toBe(401);
    expect((await mint(good, "192.0.2.2")).status).toBe(200);
  });
});

describe("visitors' sessions", () => {
  test.each<[string, Record<string, string>, number]>([
    ["none, as from a program", {}, 204],
    ["the server's own", { Origin: BARE_ORIGIN }, 204],
    ["a foreign one", { Origin: EVIL }, 403],
    ["null", { Origin: "null" }, 403],
    ["an empty one", { Origin: "" }, 403],
    ["its own name on another port", { Origin: "http://127.0.0.1:3001" }, 403],
    ["its own name over https", { Origin: "https://127.0.0.1:3000" }, 403],
    ["another name of this machine", { Origin: "http://localhost:3000" }, 403],
    ["its own as the start of another", { Origin: "http://127.0.0.1:3000.evil.example" }, 403],
    ["its own with a slash", { Origin: "http://127.0.0.1:3000/" }, 403],
    ["two", { Origin: `${BARE_ORIGIN}, ${EVIL}` }, 403],
    [
      "its own, but the browser says it is another site",
      { Origin: BARE_ORIGIN, "Sec-Fetch-Site": "cross-site" },
      403,
    ],
  ])("an origin that is %s", async (_, headers, status) => {
    const { send } = bareGate();
    const answer = await send(SESSIONS, { method: "POST", headers });
    expect(answer.status).toBe(status);
    expect(answer.headers.has("set-cookie")).toBe(status === 204);
    if (status === 403) await expectRefusal(answer, 403, "origin_refused");
  });

  test("are limited per address, behind a proxy by what the proxy saw", async () => {
    const { send } = bareGate({ trustProxy: 1 });
    const start = (forwarded: string) =>
      send(SESSIONS, { method: "POST", headers: { "X-Forwarded-For": forwarded } });
    for (let count = 0; count < 60; count++) {
      expect((await start(`10.0.0.${count}, 192.0.2.1`)).status).toBe(204);
    }
    const refused = await start("10.9.9.9, 192.0.2.1");
    expect(refused.headers.has("set-cookie")).toBe(false);
    expect(refused.headers.get("retry-after")).toBe("1");
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await start("192.0.2.2")).status).toBe(204);
  });

  test("don't exist on a gate without visitors", async () => {
    const { send } = bareGate({ visitors: undefined });
    const headers = { Origin: BARE_ORIGIN };
    await expectRefusal(await send(SESSIONS, { method: "POST", headers }), 404, "not_found");
    const cookie = (await bareGate().send(SESSIONS, { method: "POST" })).headers
      .get("set-cookie")
      ?.split(";")[0] as string;
    const admitted = await bareGate({ visitors: undefined }).gate.admit(
      new Request(`${BARE_ORIGIN}/ws/chat`, {
        headers: { ...HANDSHAKE, ...headers, Cookie: cookie },
      }),
    );
    expect(admitted).toEqual({ ok: false, code: "session_refused" });
  });

  test("aren't renewed while the store fails to find out whether they were revoked", async () => {
    const isRevoked = () => Promise.reject(new Error("canary-7f3a"));
    const { send } = bareGate({ store: { ...memoryTicketStore(), isRevoked } });
    const first = await send(SESSIONS, { method: "POST" });
    expect(first.status).toBe(204);
    const Cookie = first.headers.get("set-cookie")?.split(";")[0] as string;
    const renewed = await send(SESSIONS, { method: "POST", headers: { Cookie } });
    expect(renewed.headers.has("set-cookie")).toBe(false);
    await expectRefusal(renewed, 503, "store_unavailable");
  });
});

describe("who may read the answers from a page (CORS)", () => {
  const origins = ["https://app.example.com", "https://other.example.com"];
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
  };
  const granted = (answer: Response) =>
    [...answer.headers.keys()].filter((name) => name.startsWith("access-control-"));

  test.each(origins)("%s, by name and nothing wider", async (origin) => {
    const { send, bearer } = bareGate({ origins });
    for (const [path, credentials, methods] of [
      [TICKETS, null, "POST"],
      [SIGN_OUT, null, "POST"],
      [SESSIONS, "true", "GET,POST"],
    ] as const) {
      const before = await send(path, {
        method: "OPTIONS",
        headers: { Origin: origin, ...preflight },
      });
      expect(before.status).toBe(204);
      expect(before.headers.get("access-control-allow-methods")).toBe(methods);
      expect(before.headers.get("access-control-allow-headers")).toBe("Authorization,Content-Type");
      expect(before.headers.get("access-control-max-age")).toBe("600");
      const answers = [
        before,
        await send(path, { method: "POST", headers: { Origin: origin, ...(await bearer()) } }),
        await send(path, { method: "DELETE", headers: { Origin: origin } }),
        await send(path, {
          method: "POST",
          headers: { Origin: origin, Authorization: "Bearer bad" },
        }),
      ];
      for (const answer of answers) {
        expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
        expect(answer.headers.get("access-control-allow-credentials")).toBe(credentials);
        expect(answer.headers.get("access-control-expose-headers")).toBe("Retry-After");
        expect(answer.headers.get("vary")).toMatch(/\borigin\b/i);
        expectHeaders(answer.headers);
      }
    }
  });

  test.each<[string, Record<string, string>]>([
    ["a foreign page", { Origin: EVIL }],
    ["a page without an origin of its own", { Origin: "null" }],
    ["a program", {}],
    ["the server's own origin, once others are named", { Origin: BARE_ORIGIN }],
    ["an allowed one in other case", { Origin: "https://APP.example.com" }],
    ["an allowed one with its default port", { Origin: "https://app.example.com:443" }],
    ["a subdomain of an allowed one", { Origin: "https://x.app.example.com" }],
    ["both allowed ones at once", { Origin: origins.join(", ") }],
    ["all allowed ones as a list", { Origin: origins.join(" ") }],
  ])("not %s", async (_, headers) => {
    const { send, bearer } = bareGate({ origins });
    for (const path of [TICKETS, SESSIONS, SIGN_OUT]) {
      const answers = [
        await send(path, { method: "OPTIONS", headers: { ...headers, ...preflight } }),
        await send(path, { method: "POST", headers: { ...headers, ...(await bearer()) } }),
        await send(path, { method: "POST", headers: { ...headers, Authorization: "Bearer bad" } }),
        await send(path, { method: "DELETE", headers }),
      ];
      expect(answers[0]?.status).toBe(405);
      for (const answer of answers) {
        expect(granted(answer)).toEqual([]);
        expect(answer.headers.get("vary")).toMatch(/\borigin\b/i);
        expectHeaders(answer.headers);
      }
    }
  });

  test("a preflight is OPTIONS: another method with its headers is served as it is", async () => {
    const { send, bearer } = bareGate({ origins });
    const headers = { Origin: origins[0] as string, ...preflight, ...(await bearer()) };
    expect((await send(TICKETS, { method: "POST", headers })).status).toBe(200);
  });

  test("no page on paths that are not the gate's", async () => {
    const { send } = bareGate({ origins });
    for (const path of [
      "/",
      "/elsewhere",
      "/api/auth",
      "/api/auth/nowhere",
      "/api/auth/ws-ticket/",
    ]) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const headers = { Origin: origins[0] as string, ...preflight };
        expect(granted(await send(path, { method, headers }))).toEqual([]);
      }
    }
  });
});

describe("signing out", () => {
  test("ends the token's right to tickets, and no other's", async () => {
    const { send, bearer } = bareGate();
    const [alice, bob] = await Promise.all([bearer("alice"), bearer("bob")]);
    expect((await send(SIGN_OUT, { method: "POST", headers: alice })).status).toBe(204);
    const refused = await send(TICKETS, { method: "POST", headers: alice });
    await expectRefusal(refused, 401, "token_invalid");
    expect((await send(TICKETS, { method: "POST", headers: bob })).status).toBe(200);
  });

  test.each<[string, string | undefined, number]>([
    ["none", undefined, 204],
    ["this session only", '{"everywhere":false}', 204],
    ["everywhere", '{"everywhere":true}', 204],
    ["an empty object", "{}", 204],
    ["everywhere as a string", '{"everywhere":"true"}', 400],
    ["everywhere as a number", '{"everywhere":1}', 400],
    ["null", "null", 400],
    ["a list", "[]", 400],
    ["a string", '"everywhere"', 400],
    ["no JSON", "everywhere", 400],
  ])("with a body that is %s", async (_, body, status) => {
    const { send, bearer, clock } = bareGate();
    const headers = await bearer("alice", { iat: clock.nowMs() / 1000 });
    const init = { method: "POST", headers, ...(body !== undefined && { body }) };
    const response = await send(SIGN_OUT, init);
    expect(response.status).toBe(status);
    if (status === 400) await expectRefusal(response, 400, "malformed_request");
    const minted = await send(TICKETS, { method: "POST", headers });
    expect(minted.status).toBe(status === 400 ? 200 : 401);
  });

  test("everywhere needs a token with iat: without one, later tokens would be refused, too", async () => {
    const { send, bearer } = bareGate();
    const init = { method: "POST", headers: await bearer() };
    const everywhere = await send(SIGN_OUT, { ...init, body: '{"everywhere":true}' });
    await expectRefusal(everywhere, 400, "malformed_request");
    expect((await send(TICKETS, init)).status).toBe(200);
    expect((await send(SIGN_OUT, init)).status).toBe(204);
  });

  test("is limited to ten a minute per user", async () => {
    const { send, bearer, clock } = bareGate();
    const signOut = async (user: string, jti: string) =>
      send(SIGN_OUT, { method: "POST", headers: await bearer(user, { jti }) });
    for (let count = 0; count < 10; count++) {
      expect((await signOut("alice", `${count}`)).status).toBe(204);
    }
    const refused = await signOut("alice", "next");
    expect(refused.headers.get("retry-after")).toBe("6");
    await expectRefusal(refused, 429, "too_many_requests");
    expect((await signOut("bob", "first")).status).toBe(204);
    clock.advance(6_000);
    expect((await signOut("alice", "next")).status).toBe(204);
  });

  test.each<[string, Record<string, string>, string]>([
    ["no token", {}, "token_missing"],
    ["a bad token", { Authorization: "Bearer bad" }, "token_invalid"],
  ])("needs a valid token: %s", async (_, headers, code) => {
    await expectRefusal(await bareGate().send(SIGN_OUT, { method: "POST", headers }), 401, code);
  });

  test("isn't confirmed where the store failed", async () => {
    const revoke = () => Promise.reject(new Error("canary-7f3a"));
    const { send, bearer, logLines } = bareGate({ store: { ...memoryTicketStore(), revoke } });
    const response = await send(SIGN_OUT, { method: "POST", headers: await bearer() });
    await expectRefusal(response, 503, "store_unavailable");
    expect(logLines.join("")).not.toContain("canary-7f3a");
  });
});

describe("what breaks inside stays inside", () => {
  const boom = (): never => {
    throw Object.assign(new Error("canary-7f3a at /srv/app.ts"), { code: "EBOOM" });
  };

  test.each<[string, Parameters<typeof bareGate>[0], string, RequestInit]>([
    ["a source of randomness that throws", { randomBytes: boom }, TICKETS, {}],
    ["a source of randomness that throws for a visitor", { randomBytes: boom }, SESSIONS, {}],
    [
      "a proof that isn't one",
      { users: () => ({ user: "canary-7f3a\n", expiresAtMs: 1 }) },
      TICKETS,
      {},
    ],
    [
      "a body that breaks off",
      {},
      SIGN_OUT,
      {
        body: new ReadableStream({
          start: (controller) => controller.error(new Error("canary-7f3a")),
        }),
      },
    ],
  ])("%s", async (_, options, path, init) => {
    const { send, bearer, logLines } = bareGate(options);
    const response = await send(path, { method: "POST", headers: await bearer(), ...init });
    expectHeaders(response.headers);
    expect(await response.clone().text()).not.toMatch(/canary|srv|EBOOM|Error/);
    await expectRefusal(response, 500, "internal_error");
    expect(logLines).toHaveLength(1);
    expect(JSON.parse(logLines[0] as string)).toMatchObject({
      level: "error",
      event: "request_failed",
      code: expect.stringMatching(/^\w+$/),
    });
    expect(logLines.join("")).not.toMatch(/canary|srv/);
  });

  test.each(["put", "take", "isRevoked", "revoke"] as const)(
    "a store whose %s throws instead of rejecting",
    async (method) => {
      const { send, bearer, gate, logLines } = bareGate({
        store: { ...memoryTicketStore(), [method]: boom },
      });
      const init = async () => ({ method: "POST", headers: await bearer() });
      const responses = [await send(TICKETS, await init()), await send(SIGN_OUT, await init())];
      for (const response of responses) {
        expect([200, 204, 503]).toContain(response.status);
        expect(await response.text()).not.toContain("canary-7f3a");
      }
      const redeemed = await gate.redeem("A".repeat(43));
      expect(redeemed.ok ? "" : redeemed.code).toBe(
        method === "take" ? "store_unavailable" : "ticket_refused",
      );
      expect(logLines.join("")).not.toContain("canary-7f3a");
    },
  );

  test("through a server, too, and the next request is served", async () => {
    const store = { ...memoryTicketStore(), put: boom };
    await using server = startServer({ store });
    const response = await server.mint(await server.token());
    expect([500, 503]).toContain(response.status);
    expect(await response.text()).not.toContain("canary-7f3a");
    expect(server.logLines.join("")).not.toContain("canary-7f3a");
    expect((await fetch(`${server.origin}/healthz`)).status).toBe(200);
  });
});

test("a request that makes no URL is malformed", async () => {
  await using server = startServer();
  for (const host of ["user@127.0.0.1", "a b", "127.0.0.1:99999", "127.0.0.1/x"]) {
    const answer = await sendRaw(
      server.port,
      `POST ${TICKETS} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`,
    );
    expect([host, answer.status]).toEqual([host, 400]);
    expect(answer.text).not.toContain(host);
  }
});
