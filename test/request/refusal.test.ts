import { describe, expect, test } from "bun:test";
import {
  REFUSAL_CODES,
  type RefusalCode,
  refusalResponse,
  refuse,
  refuseFor,
} from "../../src/request/refusal.ts";
import { lastingStore } from "../support/store.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { underClock } from "../support/clock.ts";
import { codeOf, startWatched } from "../support/gate.ts";
import { handshake, openRaw, type RawAnswer, sendRaw } from "../support/raw.ts";

/** What clients are promised: the status of every code, and the headers that it comes with. */
const PROMISED: Record<RefusalCode, [status: number, headers?: Record<string, string>]> = {
  malformed_request: [400],
  handshake_invalid: [400],
  credential_in_url: [400],
  token_missing: [401, { "WWW-Authenticate": "Bearer" }],
  token_invalid: [401, { "WWW-Authenticate": 'Bearer error="invalid_token"' }],
  ticket_refused: [401, { "WWW-Authenticate": "Ticket" }],
  session_refused: [401, { "WWW-Authenticate": "Ticket" }],
  origin_refused: [403],
  not_found: [404],
  method_not_allowed: [405],
  body_too_large: [413],
  upgrade_required: [426, { Upgrade: "websocket", "Sec-WebSocket-Version": "13" }],
  too_many_requests: [429],
  internal_error: [500],
  store_unavailable: [503, { "Retry-After": "2" }],
  keys_unavailable: [503, { "Retry-After": "5" }],
  shutting_down: [503, { "Retry-After": "5" }],
};

const ALWAYS = {
  "Cache-Control": "no-store",
  "Content-Type": "application/problem+json",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

describe("the table of refusals", () => {
  test("is closed", () => {
    expect([...REFUSAL_CODES].sort()).toEqual((Object.keys(PROMISED) as RefusalCode[]).sort());
  });

  test.each(REFUSAL_CODES.map((code) => [code]))("%s", async (code) => {
    const [status, headers = {}] = PROMISED[code];
    const response = refusalResponse(refuse(code));
    expect(response.status).toBe(status);
    for (const [name, value] of Object.entries({ ...ALWAYS, ...headers })) {
      expect([name, response.headers.get(name)]).toEqual([name, value]);
    }
    const body = (await response.json()) as Record<string, unknown>;
    expect(Object.keys(body).sort()).toEqual(["code", "detail", "status", "type"]);
    expect(body).toMatchObject({ type: "about:blank", status, code });
    expect(body.detail).toMatch(/^[A-Z].*[^.]$/);
  });

  test("Retry-After is in whole seconds, and never too early", () => {
    for (const [waitMs, seconds] of [
      [1, "1"],
      [999, "1"],
      [1_000, "1"],
      [1_001, "2"],
      [59_999.5, "60"],
    ] as const) {
      const response = refusalResponse(refuseFor(waitMs));
      expect([response.status, response.headers.get("retry-after")]).toEqual([429, seconds]);
    }
  });
});

/** Stands wherever a client can write something. */
const CANARY = "canary7f3acanary7f3acanary7f3acanary7f3acAA";

/** A request over the wire that a server refuses with this code. */
interface Case {
  readonly code: RefusalCode;
  readonly options?: Parameters<typeof startServer>[0];
  readonly headers?: Record<string, string>;
  prepare?(server: TestServer): Promise<unknown>;
  write(server: TestServer): string | Promise<string>;
}

const NOISE = {
  "User-Agent": CANARY,
  Referer: `https://${CANARY}.test/`,
  "X-Request-ID": CANARY,
  "Sec-WebSocket-Protocol": CANARY,
  Cookie: `${CANARY}=${CANARY}; anonSessionId=v1.${CANARY}`,
};

function post(path: string, headers: Record<string, string> = {}, body = CANARY): string {
  return handshake(
    path,
    {
      ...NOISE,
      Upgrade: null,
      Connection: "close",
      "Content-Length": String(body.length),
      ...headers,
    },
    { method: "POST", body },
  );
}

const failingStore = {
  ...lastingStore(),
  put: () => Promise.reject(new Error(CANARY)),
  take: () => Promise.reject(new Error(CANARY)),
};

const CASES: readonly Case[] = [
  {
    code: "malformed_request",
    write: () => handshake(`/ws/chat?ticket=${CANARY}`, { ...NOISE, Host: `u:${CANARY}@x` }),
  },
  {
    code: "malformed_request",
    write: () => handshake(`/ws/chat?ticket=${CANARY}&ticket=${CANARY}`, NOISE),
  },
  {
    code: "malformed_request",
    write: () => post("/api/auth/ws-ticket", { Authorization: `Bearer ${CANARY} ${CANARY}` }),
  },
  {
    code: "handshake_invalid",
    write: () => handshake("/ws/chat", { ...NOISE, "Sec-WebSocket-Key": CANARY }),
  },
  {
    code: "credential_in_url",
    write: () => handshake(`/ws/chat?token=${CANARY}&${CANARY}=${CANARY}`, NOISE),
  },
  { code: "token_missing", write: () => post(`/api/auth/ws-ticket?${CANARY}`) },
  {
    code: "token_invalid",
    write: () => post("/api/auth/ws-ticket", { Authorization: `Bearer ${CANARY}` }),
  },
  { code: "ticket_refused", write: () => handshake(`/ws/chat?ticket=${CANARY}`, NOISE) },
  { code: "ticket_refused", write: () => handshake(`/ws/chat?ticket=${CANARY}x`, NOISE) },
  {
    code: "session_refused",
    write: ({ origin, port }) =>
      handshake("/ws/chat", { ...NOISE, Host: `127.0.0.1:${port}`, Origin: origin }),
  },
  {
    code: "origin_refused",
    write: () => handshake("/ws/chat", { ...NOISE, Origin: `https://${CANARY}.test` }),
  },
  {
    code: "origin_refused",
    write: () => post("/api/auth/anonymous-session", { Origin: `https://${CANARY}.test` }),
  },
  { code: "not_found", write: () => post(`/${CANARY}`) },
  {
    code: "method_not_allowed",
    headers: { Allow: "GET" },
    write: () => handshake(`/ws/chat?${CANARY}`, NOISE, { method: "PUT" }),
  },
  {
    code: "method_not_allowed",
    headers: { Allow: "POST" },
    write: () => handshake("/api/auth/ws-ticket", { ...NOISE, Upgrade: null }),
  },
  {
    code: "body_too_large",
    write: () => post("/api/auth/ws-ticket", {}, CANARY.repeat(1_000)),
  },
  {
    code: "upgrade_required",
    write: () => handshake(`/ws/chat?ticket=${CANARY}`, { ...NOISE, Upgrade: null }),
  },
  {
    code: "too_many_requests",
    options: { ticketsPerMinute: 1 },
    headers: { "Retry-After": "60" },
    prepare: async (server) => server.mint(await server.token(CANARY)),
    write: async (server) =>
      post("/api/auth/ws-ticket", { Authorization: `Bearer ${await server.token(CANARY)}` }),
  },
  {
    code: "store_unavailable",
    options: { store: failingStore },
    write: () => handshake(`/ws/chat?ticket=${CANARY}`, NOISE),
  },
  {
    code: "store_unavailable",
    options: { store: failingStore },
    write: async (server) =>
      post("/api/auth/ws-ticket", { Authorization: `Bearer ${await server.token(CANARY)}` }),
  },
  {
    code: "keys_unavailable",
    options: { keys: { jwksUrl: new URL(`http://127.0.0.1:1/${CANARY}`) } },
    write: () => {
      const header = btoa(JSON.stringify({ alg: "ES256", kid: CANARY })).replaceAll("=", "");
      const payload = btoa(JSON.stringify({ sub: CANARY, exp: 4_000_000_000 })).replaceAll("=", "");
      return post("/api/auth/ws-ticket", {
        Authorization: `Bearer ${header}.${payload}.${"A".repeat(86)}`,
      });
    },
  },
];

describe("refused over the wire", () => {
  test.each(CASES.map((one) => [one.code, one] as const))("%s", async (code, one) => {
    await using server = startServer(one.options);
    await one.prepare?.(server);
    const answer = await sendRaw(server.port, await one.write(server));
    expectRefusal(answer, code, one.headers);
  });

  test("shutting_down", async () => {
    await using server = startWatched();
    using connection = await openRaw(server.port);
    const request = handshake(`/ws/chat?ticket=${CANARY}`, NOISE);
    connection.write(request.slice(0, -2));
    // The stop waits for a handshake in progress; by then the other's beginning has been read.
    const held = server.store.hold();
    const inProgress = server.knock(await server.ticket());
    await held.asked;
    const stopped = server.server.stop();
    connection.write(request.slice(-2));
    await connection.until((text) => text.includes('"code"'));
    const { text } = connection;
    held.release();
    await inProgress;
    await underClock(server.clock, stopped);
    expect(text).toStartWith("HTTP/1.1 503 ");
    expect(text).toContain('"code":"shutting_down"');
    expect(text.toLowerCase()).not.toContain("canary");
  });

  test("every code that a request can cause is among these", () => {
    const shown = new Set<RefusalCode>(CASES.map(({ code }) => code)).add("shutting_down");
    expect(REFUSAL_CODES.filter((code) => !shown.has(code))).toEqual(["internal_error"]);
  });
});

function expectRefusal(
  answer: RawAnswer,
  code: RefusalCode,
  further: Record<string, string> = {},
): void {
  const [status, headers] = PROMISED[code];
  expect([answer.status, codeOf(answer)]).toEqual([status, code]);
  for (const [name, value] of Object.entries({ ...ALWAYS, ...headers, ...further })) {
    expect([name, answer.headers.get(name)]).toEqual([name, value]);
  }
  expect(answer.headers.has("set-cookie")).toBe(false);
  expect(answer.headers.has("access-control-allow-origin")).toBe(false);
  expect(answer.text.toLowerCase()).not.toContain("canary");
}
