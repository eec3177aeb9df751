import { describe, expect, test } from "bun:test";
import { createChat } from "../../src/chat/chat.ts";
import type { ChatHistory } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import { signToken } from "../../src/gate/token.ts";
import { DEPENDENCY_DEADLINE_MS } from "../../src/lib/deadline.ts";
import { createServerRoutes } from "../../src/routes.ts";
import { fakeClock, settle } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate, expectHeaders, expectRefusal } from "../support/gate.ts";
import { sendRaw } from "../support/raw.ts";
import { startServer, TOKEN_SECRET } from "../support/server.ts";

const TICKETS = "/api/auth/ws-ticket";
const SESSIONS = "/api/auth/anonymous-session";
const DEMO = "/api/demo/token";
const KICK = "/api/admin/identities/alice/sockets";
const ADMIN_TOKEN = "an-admin-token-of-the-tests-own-0123456789";
const EVIL = "https://evil.example";

const brokenStore: TicketStore = {
  ...memoryTicketStore(),
  take: () => Promise.reject(new Error("canary-7f3a in a message")),
};

/** The server's routes without a server around them. Those of the gate are its own. */
function routesOf(
  options: {
    store?: TicketStore;
    origins?: readonly string[];
    publicUrl?: string;
    trustProxy?: number;
    adminToken?: string;
    signDemoToken?: (user: string) => Promise<string>;
    isStopping?: () => boolean;
    history?: ChatHistory;
  } = {},
) {
  const { adminToken, signDemoToken, isStopping = () => false, ...rest } = options;
  const { history: ownHistory, ...gateOptions } = rest;
  const bare = bareGate(gateOptions);
  const history = ownHistory ?? sqliteChatHistory({ path: ":memory:", clock: bare.clock });
  const chat = createChat(bare.gate, history);
  const fetch = createServerRoutes({
    gate: bare.gate,
    chat,
    adminToken,
    signDemoToken,
    isStopping,
  });
  return {
    ...bare,
    mint: (init: RequestInit = {}) => bare.send(TICKETS, { method: "POST", ...init }),
    send: (path: string, init?: RequestInit, origin = BARE_ORIGIN) =>
      fetch(new Request(`${origin}${path}`, init)),
  };
}

function signDemoToken(user: string): Promise<string> {
  const expiresAtMs = fakeClock().nowMs() + 3_600_000;
  return signToken({ secret: TOKEN_SECRET, user, expiresAtMs });
}

describe("methods", () => {
  const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
  test.each<[string, string, string[]]>([
    [KICK, "DELETE", ["DELETE"]],
    [DEMO, "POST", ["POST"]],
    ["/healthz", "GET, HEAD", ["GET", "HEAD"]],
    ["/readyz", "GET, HEAD", ["GET", "HEAD"]],
  ])("%s takes %s, and refuses every other", async (path, allow, allowed) => {
    await using server = startServer({ signDemoToken, adminToken: ADMIN_TOKEN });
    for (const method of [...methods, "TRACE", "QUERY", "LOCK"]) {
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
    KICK,
    DEMO,
    "/healthz",
    "/readyz",
    "/",
    "/nowhere",
    "/api/chats",
    "/api/chats/alice/messages",
  ])("is refused on %s under every name", async (path) => {
    const { send, bearer } = routesOf({ signDemoToken, adminToken: ADMIN_TOKEN });
    for (const name of names) {
      for (const method of ["GET", "POST", "DELETE", "OPTIONS"]) {
        const headers = { Origin: BARE_ORIGIN, ...(await bearer()) };
        const response = await send(`${path}?${name}=canary-7f3a`, { method, headers });
        expectHeaders(response.headers);
        await expectRefusal(response, 400, "credential_in_url");
      }
    }
  });

  test("two tickets are malformed, one doesn't matter where none is needed", async () => {
    const { send } = routesOf();
    await expectRefusal(await send("/healthz?ticket=a&ticket=b"), 400, "malformed_request");
    expect((await send("/healthz?ticket=a&q=1")).status).toBe(200);
  });

  test("is none behind the sign of a fragment, where no route reads a query either", async () => {
    expect((await routesOf().send("/healthz#?token=x")).status).toBe(200);
  });
});

describe("headers on every answer", () => {
  test.each<[number, string, RequestInit]>([
    [200, "/healthz", {}],
    [200, "/readyz", {}],
    [400, "/healthz?token=x", {}],
    [401, KICK, { method: "DELETE" }],
    [401, "/api/chats", {}],
    [403, DEMO, { method: "POST", headers: { Origin: EVIL } }],
    [404, "/nowhere", {}],
    [405, "/healthz", { method: "POST" }],
    [413, DEMO, { method: "POST", body: "x".repeat(16_385) }],
  ])("%i", async (status, path, init) => {
    const { send } = routesOf({ signDemoToken, adminToken: ADMIN_TOKEN });
    const response = await send(path, init);
    expect(response.status).toBe(status);
    expectHeaders(response.headers);
    expect(response.headers.has("strict-transport-security")).toBe(false);
  });

  test.each([
    ["a public address with https", { publicUrl: "https://chat.example.com" }, undefined],
    ["https itself", {}, "https://chat.example.com"],
  ])("with %s also that it stays https", async (_, options, origin) => {
    const { send } = routesOf(options);
    for (const path of ["/healthz", "/readyz", "/nowhere", "/healthz?token=x"]) {
      const response = await send(path, {}, origin);
      expect(response.headers.get("strict-transport-security")).toMatch(/^max-age=31536000\b/);
    }
  });

  test("a public address without https has no such header, even where the request came by https", async () => {
    const { send } = routesOf({ publicUrl: "http://localhost:8080" });
    const response = await send("/healthz", {}, "https://localhost:8080");
    expect(response.headers.has("strict-transport-security")).toBe(false);
  });
});

test("no page of another origin may read these routes (CORS)", async () => {
  const origins = ["https://app.example.com"];
  const { send } = routesOf({ origins, signDemoToken, adminToken: ADMIN_TOKEN });
  for (const path of ["/healthz", "/readyz", "/nowhere", DEMO, KICK]) {
    for (const method of ["GET", "POST", "DELETE", "OPTIONS"]) {
      const headers = {
        Origin: origins[0] as string,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
      };
      const response = await send(path, { method, headers });
      const names = [...response.headers.keys()];
      expect(names.filter((name) => name.startsWith("access-control-"))).toEqual([]);
    }
  }
});

describe("demo tokens", () => {
  const post = (body: string, headers: Record<string, string> = {}): RequestInit => ({
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body,
  });

  test("sign somebody in under any name", async () => {
    const { send, mint, logLines } = routesOf({ signDemoToken });
    const signed = await send(DEMO, post('{"name":"Ålice"}'));
    const { token } = (await signed.json()) as { token: string };
    const minted = await mint({ headers: { Authorization: `Bearer ${token}` } });
    expect(minted.status).toBe(200);
    expect(logLines.join("")).toContain('"user":"Ålice"');
  });

  test("don't exist outside the demo mode", async () => {
    await expectRefusal(await routesOf().send(DEMO, post('{"name":"alice"}')), 404, "not_found");
  });

  test.each([EVIL, "null", "http://localhost:3000"])(
    "are refused to pages of %s",
    async (origin) => {
      const { send } = routesOf({ signDemoToken });
      const answer = await send(DEMO, post('{"name":"alice"}', { Origin: origin }));
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
    const { send } = routesOf({ signDemoToken });
    await expectRefusal(await send(DEMO, post(body)), 400, "malformed_request");
  });

  test.each(["https://chat.example.com", "http://chat.example.com", "http://192.0.2.1:3000"])(
    "and everything else of the demo mode are refused at %s: through a proxy they would be signed for anybody",
    async (origin) => {
      const { send } = routesOf({ signDemoToken });
      const signing = await send(DEMO, post('{"name":"alice"}'), origin);
      await expectRefusal(signing, 403, "origin_refused");
      await expectRefusal(await send("/", {}, origin), 403, "origin_refused");
    },
  );
});

describe("the operator's way to end somebody's sockets", () => {
  const remove = (token: string) => ({
    method: "DELETE",
    headers: { Authorization: `Bearer ${token}` },
  });

  test("doesn't exist without a token of the operator's", async () => {
    await expectRefusal(await routesOf().send(KICK, remove(ADMIN_TOKEN)), 404, "not_found");
  });

  test("takes that token and no other", async () => {
    const { send, bearer, mint } = routesOf({ adminToken: ADMIN_TOKEN });
    const others = [`${ADMIN_TOKEN}x`, ADMIN_TOKEN.slice(1), ADMIN_TOKEN.toUpperCase(), "x"];
    const users = (await bearer("alice")).Authorization.slice("Bearer ".length);
    for (const token of [...others, users]) {
      await expectRefusal(await send(KICK, remove(token)), 401, "token_invalid");
    }
    await expectRefusal(await send(KICK, { method: "DELETE" }), 401, "token_missing");
    expect((await mint({ headers: await bearer() })).status).toBe(200);
    expect((await send(KICK, remove(ADMIN_TOKEN))).status).toBe(204);
    expect((await mint({ headers: await bearer() })).status).toBe(401);
  });

  test("slows an address down that guesses", async () => {
    const { send } = routesOf({ adminToken: ADMIN_TOKEN, trustProxy: 1 });
    const guess = (token: string, address: string) => {
      const { method, headers } = remove(token);
      return send(KICK, { method, headers: { ...headers, "X-Forwarded-For": address } });
    };
    for (let time = 0; time < 120 + 10; time++) {
      expect((await guess(`guess-${time}`, "192.0.2.1")).status).toBe(401);
    }
    await expectRefusal(await guess("guess", "192.0.2.1"), 429, "too_many_requests");
    expect((await guess("guess", "192.0.2.2")).status).toBe(401);
    expect((await guess(ADMIN_TOKEN, "192.0.2.1")).status).toBe(204);
  });

  test("isn't confirmed where the store failed", async () => {
    const revoke = () => Promise.reject(new Error("canary-7f3a"));
    const store = { ...memoryTicketStore(), revoke };
    const { send, logLines } = routesOf({ adminToken: ADMIN_TOKEN, store });
    await expectRefusal(await send(KICK, remove(ADMIN_TOKEN)), 503, "store_unavailable");
    expect(logLines.join("")).not.toContain("canary-7f3a");
  });

  test("is no user's token", async () => {
    const { mint } = routesOf({ adminToken: ADMIN_TOKEN });
    const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
    await expectRefusal(await mint({ headers }), 401, "token_invalid");
  });
});

describe("health", () => {
  test("/healthz: 200 while the process lives, whatever the store does", async () => {
    const { send } = routesOf({ store: brokenStore, isStopping: () => true });
    expect((await send("/healthz")).status).toBe(200);
    expect(await (await send("/healthz", { method: "HEAD" })).text()).toBe("");
  });

  test.each(["/healthz", "/readyz"])(
    "%s answers HTTP/1.0 without a host, as proxies check it",
    async (path) => {
      await using server = startServer();
      const answer = await sendRaw(server.port, `GET ${path} HTTP/1.0\r\n\r\n`);
      expect([answer.status, answer.body]).toEqual([200, '{"status":"ok"}']);
      expectHeaders(answer.headers);
    },
  );

  test("/readyz: 200 with a store that works", async () => {
    const answer = await routesOf().send("/readyz");
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
    const { send, logLines, clock } = routesOf({ store });
    await expectRefusal(await send("/readyz"), 503, "store_unavailable");
    expect(logLines.join("")).not.toContain("canary-7f3a");
    fails = false;
    clock.advance(1_000);
    expect((await send("/readyz")).status).toBe(200);
  });

  test("/readyz: 503 while the server is stopping", async () => {
    const { send } = routesOf({ isStopping: () => true });
    await expectRefusal(await send("/readyz"), 503, "shutting_down");
  });

  test("/readyz probes the store once a second at most, however many requests there are", async () => {
    let probes = 0;
    const store = { ...memoryTicketStore(), take: async () => void probes++ };
    const { send, clock } = routesOf({ store: store as unknown as TicketStore });
    await Promise.all(Array.from({ length: 50 }, () => send("/readyz")));
    expect(probes).toBe(1);
    clock.advance(999);
    await send("/readyz");
    expect(probes).toBe(1);
    clock.advance(1);
    await send("/readyz");
    expect(probes).toBe(2);
  });

  test("/readyz with a store that hangs: 503 at its deadline", async () => {
    const asked = Promise.withResolvers<void>();
    const store = {
      ...memoryTicketStore(),
      take() {
        asked.resolve();
        return new Promise<never>(() => {});
      },
    };
    const { send, clock } = routesOf({ store });
    let isAnswered = false;
    const probing = send("/readyz").finally(() => {
      isAnswered = true;
    });
    await asked.promise;
    await settle();
    clock.advance(DEPENDENCY_DEADLINE_MS - 1);
    await settle();
    expect(isAnswered).toBe(false);
    clock.advance(1);
    await expectRefusal(await probing, 503, "store_unavailable");
  });

  test("/readyz: 503 while the chat can't store anything, and 200 again within a second of its recovery", async () => {
    let fails = true;
    let probes = 0;
    const history = {
      ...sqliteChatHistory({ path: ":memory:", clock: fakeClock() }),
      async probe() {
        probes++;
        if (fails) throw Object.assign(new Error("canary-7f3a"), { code: "OOM" });
      },
    };
    const { send, clock, logLines } = routesOf({ history });
    for (let round = 1; round <= 3; round++) {
      await expectRefusal(await send("/readyz"), 503, "store_unavailable");
      expect(probes).toBe(round);
      clock.advance(1_000);
    }
    expect(logLines.join("")).toContain('"event":"chat_failed","code":"out_of_memory"');
    expect(logLines.join("")).not.toContain("canary-7f3a");
    fails = false;
    expect((await send("/readyz")).status).toBe(200);
    // A good probe writes to the disk: once in ten seconds is enough.
    clock.advance(9_000);
    expect((await send("/readyz")).status).toBe(200);
    expect(probes).toBe(4);
    fails = true;
    clock.advance(1_000);
    await expectRefusal(await send("/readyz"), 503, "store_unavailable");
  });

  test("/readyz with a chat that hangs: 503 at its deadline", async () => {
    const asked = Promise.withResolvers<void>();
    const history = {
      ...sqliteChatHistory({ path: ":memory:", clock: fakeClock() }),
      probe() {
        asked.resolve();
        return new Promise<never>(() => {});
      },
    };
    const { send, clock } = routesOf({ history });
    const probing = send("/readyz");
    await asked.promise;
    await settle();
    clock.advance(DEPENDENCY_DEADLINE_MS);
    await expectRefusal(await probing, 503, "store_unavailable");
  });

  test("/readyz with a history of one's own that can't say: 200", async () => {
    const { probe: _, ...history } = sqliteChatHistory({ path: ":memory:", clock: fakeClock() });
    expect((await routesOf({ history }).send("/readyz")).status).toBe(200);
  });

  test("/readyz: 503 while revocations by other processes can't be read, and 200 again after that", async () => {
    const revocations = { subscribe() {}, ready: async () => {}, isFailing: true };
    const { send, clock } = routesOf({ store: { ...memoryTicketStore(), revocations } });
    await expectRefusal(await send("/readyz"), 503, "store_unavailable");
    revocations.isFailing = false;
    clock.advance(1_000);
    expect((await send("/readyz")).status).toBe(200);
  });
});

describe("what breaks inside stays inside", () => {
  const boom = (): never => {
    throw Object.assign(new Error("canary-7f3a at /srv/app.ts"), { code: "EBOOM" });
  };

  test.each<[string, Parameters<typeof routesOf>[0], string, RequestInit]>([
    ["a state that throws", { isStopping: boom }, "/readyz", {}],
    [
      "a signer that throws",
      { signDemoToken: boom },
      DEMO,
      { method: "POST", body: '{"name":"alice"}' },
    ],
    [
      "a signer that rejects",
      { signDemoToken: async () => boom() },
      DEMO,
      { method: "POST", body: '{"name":"alice"}' },
    ],
  ])("%s", async (_, options, path, init) => {
    const { send, logLines } = routesOf(options);
    const response = await send(path, init);
    expectHeaders(response.headers);
    expect(await response.clone().text()).not.toMatch(/canary|srv|EBOOM|Error/);
    await expectRefusal(response, 500, "internal_error");
    expect(logLines).toHaveLength(1);
    expect(JSON.parse(logLines[0] as string)).toMatchObject({
      level: "error",
      event: "request_failed",
      code: "EBOOM",
    });
    expect(logLines.join("")).not.toMatch(/canary|srv/);
  });
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
