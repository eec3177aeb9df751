import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { admit } from "../../src/gate/admit.ts";
import { toBase64url } from "../../src/lib/encoding.ts";
import type { Feed } from "../../src/redis/feed.ts";
import type { RefusalCode } from "../../src/request/refusal.ts";
import { codeOf, type Gate, startGate } from "../support/gate.ts";
import { HANDSHAKE, handshake, openRaw, sendRaw } from "../support/raw.ts";
import { startServer } from "../support/server.ts";
import { lastingStore } from "../support/store.ts";

/** Written like a ticket, and never issued. */
const UNKNOWN = toBase64url(new Uint8Array(32).fill(1));
const JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

/** Failed handshakes that an address may make in a minute. */
const FAILURES = 120;

interface Knock {
  method: string;
  query: string;
  headers: Record<string, string | null>;
}

const NO_URL = "a host that makes no URL";

/** The rungs that a request alone can fail at, in their order. */
const RUNGS: [name: string, status: number, code: RefusalCode, fault: (knock: Knock) => void][] = [
  [NO_URL, 400, "malformed_request", ({ headers }) => (headers.Host = "a b")],
  ["another method", 405, "method_not_allowed", (knock) => (knock.method = "POST")],
  ["no upgrade", 426, "upgrade_required", ({ headers }) => (headers.Upgrade = null)],
  [
    "a version other than 13",
    426,
    "upgrade_required",
    ({ headers }) => (headers["Sec-WebSocket-Version"] = "8"),
  ],
  ["no connection option", 400, "handshake_invalid", ({ headers }) => (headers.Connection = null)],
  ["no key", 400, "handshake_invalid", ({ headers }) => (headers["Sec-WebSocket-Key"] = null)],
  ["a body", 400, "handshake_invalid", ({ headers }) => (headers["Content-Length"] = "5")],
  [
    "a foreign origin",
    403,
    "origin_refused",
    ({ headers }) => (headers.Origin = "https://evil.test"),
  ],
  ["a token in the URL", 400, "credential_in_url", (knock) => (knock.query += `&token=${JWT}`)],
  ["two tickets", 400, "malformed_request", (knock) => (knock.query += "&ticket=x")],
  [
    "a ticket that isn't written like one",
    401,
    "ticket_refused",
    (knock) => (knock.query = knock.query.replace("ticket=", "ticket=x")),
  ],
];

function write(ticket: string, ...faults: ((knock: Knock) => void)[]): string {
  const knock: Knock = { method: "GET", query: `ticket=${ticket}`, headers: {} };
  for (const fault of faults) fault(knock);
  const { method, query, headers } = knock;
  return handshake(`/ws/chat?${query}`, headers, { method });
}

describe("each rung of the ladder refuses by itself and leaves the ticket alone", () => {
  test.each(RUNGS)("%s", async (name, status, code, fault) => {
    await using gate = startGate();
    const answer = await gate.turnAway((ticket) => write(ticket, fault));
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
    const logged = gate.logLines.filter((line) => line.includes('"socket_refused"'));
    // Without a URL there is no telling that a socket was wanted.
    expect(logged).toHaveLength(name === NO_URL ? 0 : 1);
  });

  test("a server on its way out", async () => {
    const store = lastingStore();
    await using leaving = startServer({ store });
    await using staying = startGate({ store });
    const ticket = await staying.ticket();
    using connection = await openRaw(leaving.port);
    const request = write(ticket);
    connection.write(request.slice(0, -2));
    // By the time that this one is answered the other's beginning has been read.
    await fetch(`${leaving.origin}/healthz`);
    void leaving.server.stop();
    connection.write(request.slice(-2));
    expect(await connection.closed).toStartWith("HTTP/1.1 503 ");
    expect(connection.text).toContain('"code":"shutting_down"');
    expect((await staying.knock(ticket)).status).toBe(101);
  });

  test("an address that failed too often", async () => {
    await using gate = startGate({ trustProxy: 1 });
    await fail(gate, "192.0.2.1", FAILURES);
    const answer = await gate.turnAway((ticket) =>
      handshake(`/ws/chat?ticket=${ticket}`, { "X-Forwarded-For": "192.0.2.1" }),
    );
    expect([answer.status, codeOf(answer)]).toEqual([429, "too_many_requests"]);
    expect(answer.headers.get("retry-after")).toBe("1");
  });

  test("neither a ticket nor a cookie", async () => {
    await using gate = startGate();
    const answer = await gate.turnAway(() => handshake("/ws/chat"));
    expect([answer.status, codeOf(answer)]).toEqual([401, "session_refused"]);
  });
});

describe("of two faults the lower rung answers", () => {
  const pairs = RUNGS.flatMap(([lower, status, code, one], at) =>
    RUNGS.slice(at + 1).map(([upper, , , two]) => ({ lower, upper, status, code, one, two })),
  );
  test.each(pairs)("$lower, then $upper", async ({ status, code, one, two }) => {
    await using gate = startGate();
    const answer = await gate.turnAway((ticket) => write(ticket, one, two));
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
  });

  test("and all of them answer before the limit of an address", async () => {
    await using gate = startGate({ trustProxy: 1 });
    await fail(gate, "192.0.2.1", FAILURES);
    for (const [name, status, code, fault] of RUNGS) {
      const answer = await sendRaw(
        gate.port,
        write(UNKNOWN, ({ headers }) => (headers["X-Forwarded-For"] = "192.0.2.1"), fault),
      );
      expect([name, answer.status, codeOf(answer)]).toEqual([name, status, code]);
    }
    expect(gate.store.takes).toHaveLength(FAILURES);
  });
});

describe("the last rungs spend the ticket", () => {
  test("once it is used", async () => {
    await using gate = startGate();
    const ticket = await gate.ticket();
    expect((await gate.knock(ticket)).status).toBe(101);
    for (const _ of [1, 2]) expect(codeOf(await gate.knock(ticket))).toBe("ticket_refused");
  });

  test("when the store gave no usable answer, without asking it again", async () => {
    const store = lastingStore();
    let broken = true;
    await using gate = startGate({
      store: {
        ...store,
        async take(hash) {
          const record = await store.take(hash);
          if (broken) throw new Error("Reply lost");
          return record;
        },
      },
    });
    const ticket = await gate.ticket();
    const answer = await gate.knock(ticket);
    expect([answer.status, codeOf(answer)]).toEqual([503, "store_unavailable"]);
    expect(gate.store.takes).toHaveLength(1);
    broken = false;
    expect(codeOf(await gate.knock(ticket))).toBe("ticket_refused");
  });

  test("when the client goes away meanwhile: nothing is opened, and the log says so", async () => {
    let opened = 0;
    await using gate = startGate({ handlers: { open: () => void opened++, message() {} } });
    const ticket = await gate.ticket();
    const held = gate.store.hold();
    using connection = await openRaw(gate.port);
    connection.write(handshake(`/ws/chat?ticket=${ticket}`));
    await held.asked;
    await connection.leave();
    held.release();
    expect(codeOf(await gate.knock(ticket))).toBe("ticket_refused");
    const events = gate.logLines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.filter(({ event }) => event === "client_gone")).toMatchObject([
      { user: "alice", ticketTag: expect.any(String) },
    ]);
    expect(events.some(({ event }) => event === "socket_opened")).toBe(false);
    expect([opened, gate.server.socketCount, connection.text]).toEqual([0, 0, ""]);
  });

  test("when the server starts to leave meanwhile", async () => {
    await using gate = startGate();
    const ticket = await gate.ticket();
    const held = gate.store.hold();
    const answer = gate.knock(ticket);
    await held.asked;
    const stopped = gate.server.stop();
    held.release();
    expect(codeOf(await answer)).toBe("shutting_down");
    await stopped;
    expect(gate.server.socketCount).toBe(0);
  });
});

describe("a ticket alone decides where there is one", () => {
  /** A visitor's own headers, as a browser on the server's page sends them. */
  async function visiting(gate: Gate): Promise<Record<string, string>> {
    const Host = `127.0.0.1:${gate.port}`;
    return { Host, Origin: gate.origin, Cookie: await gate.visitorCookie() };
  }

  /** Whom the log says that the last socket was opened for. */
  function openedAs(gate: Gate): { user?: string; visitor?: string } {
    const line = gate.logLines.findLast((one) => one.includes('"socket_opened"'));
    const { user, visitor } = JSON.parse(line ?? "{}");
    return { user, visitor };
  }

  test("the cookie by itself is the visitor", async () => {
    await using gate = startGate();
    const headers = await visiting(gate);
    expect((await sendRaw(gate.port, handshake("/ws/chat", headers))).status).toBe(101);
    expect(openedAs(gate)).toEqual({ visitor: headers.Cookie?.split(".")[1] as string });
    expect(gate.store.takes).toEqual([]);
  });

  test.each([
    ["an empty one", "", 401],
    ["one that isn't written like one", "x", 401],
    ["an unknown one", UNKNOWN, 401],
    ["a JWT", JWT, 400],
  ])("a good cookie doesn't make up for %s", async (_, ticket, status) => {
    await using gate = startGate();
    const answer = await gate.knock(ticket, await visiting(gate));
    expect(answer.status).toBe(status);
    expect(gate.server.socketCount).toBe(0);
  });

  test("a good ticket beside a good cookie is the user", async () => {
    await using gate = startGate();
    const answer = await gate.knock(await gate.ticket("bob"), await visiting(gate));
    expect(answer.status).toBe(101);
    expect(openedAs(gate)).toEqual({ user: "bob" });
  });

  test("a bad cookie takes nothing from a good ticket", async () => {
    await using gate = startGate();
    const answer = await gate.knock(await gate.ticket("bob"), { Cookie: "anonSessionId=forged" });
    expect(answer.status).toBe(101);
    expect(openedAs(gate)).toEqual({ user: "bob" });
  });
});

describe("what isn't written like a ticket never gets to the store", () => {
  const cases: [name: string, value: (ticket: string) => string][] = [
    ...["", "null", "undefined", "0", "true", "[object%20Object]", "*", "%2e%2e%2f"].map(
      (value): [string, () => string] => [`the value ${JSON.stringify(value)}`, () => value],
    ),
    ["a NUL behind it", (ticket) => `${ticket}%00`],
    ["a line break behind it", (ticket) => `${ticket}%0d%0aDEL%20x`],
    ["a line feed behind it", (ticket) => `${ticket}%0a`],
    ["a blank before it", (ticket) => `%20${ticket}`],
    ["a plus behind it", (ticket) => `${ticket}+`],
    ["padding", (ticket) => `${ticket}%3D`],
    ["a percent sign that encodes nothing", (ticket) => `${ticket}%zz`],
    ["an overlong encoding", (ticket) => `${ticket.slice(1)}%c0%ae`],
    ["half a surrogate", (ticket) => `${ticket.slice(1)}%ed%a0%80`],
    ["raw UTF-8", (ticket) => `${ticket.slice(1)}\u00c3\u00a9`],
    ["encoded UTF-8", (ticket) => `${ticket.slice(1)}%C3%A9`],
    ["a character too few", (ticket) => ticket.slice(1)],
    ["a character too many", (ticket) => `A${ticket}`],
    ["15 KB", (ticket) => ticket.repeat(350)],
    ["encoded twice", (ticket) => encode(ticket).replaceAll("%", "%25")],
    ["encoded three times", (ticket) => encode(ticket).replaceAll("%", "%2525")],
    [
      "its first letter encoded twice",
      (ticket) => encode(ticket.slice(0, 1)).replace("%", "%25") + ticket.slice(1),
    ],
  ];
  test.each(cases)("%s", async (_, value) => {
    await using gate = startGate();
    const answer = await gate.turnAway((ticket) => handshake(`/ws/chat?ticket=${value(ticket)}`));
    expect([answer.status, codeOf(answer)]).toEqual([401, "ticket_refused"]);
  });

  test("a ticket that is encoded once is the same ticket", async () => {
    await using gate = startGate();
    const ticket = await gate.ticket();
    expect((await gate.knock(encode(ticket))).status).toBe(101);
    expect(codeOf(await gate.knock(ticket))).toBe("ticket_refused");
  });

  const several: [name: string, query: (ticket: string) => string][] = [
    ["a good one and a bad one", (ticket) => `ticket=${ticket}&ticket=bad`],
    ["a bad one and a good one", (ticket) => `ticket=bad&ticket=${ticket}`],
    ["a good one and an empty one", (ticket) => `ticket=${ticket}&ticket`],
    ["the same three times", (ticket) => `ticket=${ticket}&ticket=${ticket}&ticket=${ticket}`],
    ["the same in two spellings", (ticket) => `ticket=${ticket}&%74icket=${ticket}`],
  ];
  test.each(several)("several tickets: %s", async (_, query) => {
    await using gate = startGate();
    const answer = await gate.turnAway((ticket) => handshake(`/ws/chat?${query(ticket)}`));
    expect([answer.status, codeOf(answer)]).toEqual([400, "malformed_request"]);
  });

  test.each([
    ...["token", "TOKEN", "%74oken", "%2574oken", "access_token", "jwt", "anonSessionId"],
    ...["ws_ticket", "Ticket", "anonsessionid", "auth%2dtoken"],
  ])("%s is no way in, and not beside a ticket either", async (name) => {
    await using gate = startGate();
    for (const query of [`${name}=x`, `${name}=${JWT}`]) {
      const beside = await gate.turnAway((ticket) =>
        handshake(`/ws/chat?ticket=${ticket}&${query}`),
      );
      expect([beside.status, codeOf(beside)]).toEqual([400, "credential_in_url"]);
      const alone = await gate.turnAway(() => handshake(`/ws/chat?${query}`));
      expect([alone.status, codeOf(alone)]).toEqual([400, "credential_in_url"]);
    }
  });

  test.each(["/", "/api/auth/ws-ticket", "/healthz"])(
    "a ticket at %s, where no socket is",
    async (path) => {
      await using gate = startGate();
      const answer = await gate.turnAway((ticket) => handshake(`${path}?ticket=${ticket}`));
      expect(answer.status).not.toBe(101);
    },
  );

  test("a ticket anywhere but in the query", async () => {
    await using gate = startGate();
    for (const headers of [
      (ticket: string) => ({ Authorization: `Bearer ${ticket}` }),
      (ticket: string) => ({ Authorization: `Ticket ${ticket}` }),
      (ticket: string) => ({ Cookie: `ticket=${ticket}; anonSessionId=${ticket}`, Origin: "x" }),
      (ticket: string) => ({ "Sec-WebSocket-Protocol": ticket }),
      (ticket: string) => ({ "X-Ticket": ticket }),
    ]) {
      const answer = await gate.turnAway((ticket) => handshake("/ws/chat", headers(ticket)));
      expect([401, 403]).toContain(answer.status);
    }
  });
});

describe("subprotocols", () => {
  const offers: [name: string, offer: (ticket: string) => string][] = [
    ["one", () => "chat"],
    ["several", () => "chat, superchat"],
    ["the ticket first", (ticket) => `${ticket}, chat`],
    ["the ticket last", (ticket) => `chat, ${ticket}`],
    ["the ticket twice", (ticket) => `ticket.${ticket}, ticket.${ticket}`],
    ["a token", () => `bearer, ${JWT}`],
    ["nothing", () => ""],
    ["commas alone", () => ",,,"],
    ["characters that no name has", () => "a b, (c), @"],
    ["10 KB", () => "p".repeat(10_000)],
  ];
  test.each(offers)("offered and never taken up: %s", async (_, offer) => {
    await using gate = startGate();
    const ticket = await gate.ticket();
    const headers = { "Sec-WebSocket-Protocol": offer(ticket) };
    const answer = await gate.knock(ticket, headers);
    expect(answer.status).toBe(101);
    expect(answer.headers.get("sec-websocket-protocol") ?? "").toBe("");
    expect(answer.text).not.toContain(ticket);
    expect(gate.store.takes).toHaveLength(1);
    const without = await gate.turnAway((other) =>
      handshake("/ws/chat", { "Sec-WebSocket-Protocol": offer(other) }),
    );
    expect([without.status, codeOf(without)]).toEqual([401, "session_refused"]);
    expect(without.headers.has("sec-websocket-protocol")).toBe(false);
  });
});

describe("failed handshakes per address", () => {
  test("make that address wait, good tickets included, as long as Retry-After says", async () => {
    await using gate = startGate({ trustProxy: 1 });
    const from = { "X-Forwarded-For": "192.0.2.1" };
    await fail(gate, "192.0.2.1", FAILURES);
    const ticket = await gate.ticket();
    const refused = await gate.knock(ticket, from);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    gate.clock.advance(499);
    expect((await gate.knock(ticket, from)).status).toBe(429);
    gate.clock.advance(1);
    expect((await gate.knock(ticket, from)).status).toBe(101);
    expect(codeOf(await gate.knock(UNKNOWN, from))).toBe("ticket_refused");
    expect((await gate.knock(UNKNOWN, from)).status).toBe(429);
    gate.clock.advance(60_000);
    await fail(gate, "192.0.2.1", FAILURES);
    expect((await gate.knock(UNKNOWN, from)).status).toBe(429);
  });

  test("hurt no other address", async () => {
    await using gate = startGate({ trustProxy: 1 });
    await fail(gate, "192.0.2.1", FAILURES);
    for (const other of ["192.0.2.2", "2001:db8::1", "192.0.2.1, 192.0.2.3"]) {
      const answer = await gate.knock(await gate.ticket(), { "X-Forwarded-For": other });
      expect([other, answer.status]).toEqual([other, 101]);
    }
  });

  test("count for a whole IPv6 network, and for no other", async () => {
    await using gate = startGate({ trustProxy: 1 });
    for (let host = 0; host < FAILURES; host++) {
      await fail(gate, `2001:db8:0:1::${host.toString(16)}`, 1);
    }
    const knockFrom = async (address: string) =>
      (await gate.knock(await gate.ticket(), { "X-Forwarded-For": address })).status;
    expect(await knockFrom("2001:db8:0:1:ffff:ffff:ffff:ffff")).toBe(429);
    expect(await knockFrom("2001:DB8::1:0:0:0:1")).toBe(429);
    expect(await knockFrom("2001:db8:0:2::1")).toBe(101);
  });

  test("count however they fail, and only when they fail", async () => {
    await using gate = startGate({ trustProxy: 1 });
    const from = { "X-Forwarded-For": "192.0.2.1" };
    for (let time = 0; time < FAILURES; time++) {
      expect((await gate.knock(await gate.ticket(), from)).status).toBe(101);
    }
    await fail(gate, "192.0.2.1", 40);
    for (let time = 0; time < 40; time++) {
      expect(codeOf(await gate.knock("x", from))).toBe("ticket_refused");
      const nobody = await sendRaw(gate.port, handshake("/ws/chat", from));
      expect(codeOf(nobody)).toBe("session_refused");
    }
    expect((await gate.knock(await gate.ticket(), from)).status).toBe(429);
  });

  test("are shared with tokens that don't verify", async () => {
    await using gate = startGate({ trustProxy: 1 });
    const mint = (token: string) =>
      fetch(`${gate.origin}/api/auth/ws-ticket`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, "X-Forwarded-For": "192.0.2.1" },
      });
    const statuses: number[] = [];
    for (let time = 0; time < FAILURES; time++) statuses.push((await mint(JWT)).status);
    expect(new Set(statuses)).toEqual(new Set([401]));
    expect((await mint(await gate.token())).status).toBe(429);
    const answer = await gate.knock(await gate.ticket(), { "X-Forwarded-For": "192.0.2.1" });
    expect(answer.status).toBe(429);
  });

  test("can't be blamed on others, nor spread over many, by a forged header", async () => {
    await using server = startServer();
    const from = (address: string, forged: string, ticket = UNKNOWN) =>
      admit(
        new Request(`${server.origin}/ws/chat?ticket=${ticket}`, {
          headers: { ...HANDSHAKE, "X-Forwarded-For": forged, "X-Real-IP": forged },
        }),
        server.deps,
        address,
      );
    for (let time = 0; time < FAILURES; time++) {
      const refused = await from("192.0.2.1", time % 2 ? "192.0.2.9" : `198.51.100.${time}`);
      expect(refused).toEqual({ ok: false, code: "ticket_refused" });
    }
    const ticket = await server.ticket();
    expect(await from("192.0.2.1", "203.0.113.1", ticket)).toMatchObject({
      code: "too_many_requests",
    });
    expect(await from("192.0.2.9", "192.0.2.1", ticket)).toMatchObject({ ok: true });
  });

  test("a proxy on this machine that isn't trusted to name others is never made to wait itself", async () => {
    await using gate = startGate();
    await fail(gate, "192.0.2.1", FAILURES + 1);
    expect((await gate.knock(await gate.ticket())).status).toBe(101);
  });
});

describe("admit", () => {
  test("gives user, end and a tag that is no ticket", async () => {
    await using server = startServer();
    const ticket = await server.ticket("bob");
    const request = new Request(`${server.origin}/ws/chat?ticket=${ticket}`, {
      headers: HANDSHAKE,
    });
    expect(await admit(request, server.deps)).toMatchObject({
      ok: true,
      identity: { kind: "user", id: "bob", expiresAtMs: server.clock.nowMs() + 3_600_000 },
      ticketTag: expect.stringMatching(/^[0-9a-f]{6}$/),
    });
  });

  test("answers shutting_down before it looks at anything", async () => {
    await using server = startServer();
    const request = { url: "no URL", method: "X", headers: new Headers() } as Request;
    const deps = { ...server.deps, isDraining: () => true };
    expect(await admit(request, deps)).toEqual({ ok: false, code: "shutting_down" });
  });

  test("never throws and never lets in what holds no ticket and no cookie", async () => {
    await using server = startServer();
    const header = fc.stringMatching(/^[!-~]{0,40}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.webPath(),
        fc.oneof(fc.webQueryParameters(), header),
        fc.dictionary(
          fc.constantFrom(
            ...[...Object.keys(HANDSHAKE), "Origin", "Cookie", "Host", "X-Forwarded-For"],
            ...["Sec-WebSocket-Protocol", "Authorization", "Content-Length", "Expect"],
          ),
          header,
        ),
        fc.option(fc.oneof(fc.ipV4(), fc.ipV6(), header), { nil: undefined }),
        async (path, query, headers, address) => {
          const url = URL.parse(`${server.origin}${path}?${query}`);
          fc.pre(url !== null);
          const request = new Request(url as URL, { headers: { ...HANDSHAKE, ...headers } });
          expect((await admit(request, server.deps, address)).ok).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});

/** Percent-encodes every character. */
function encode(text: string): string {
  return Array.from(text, (char) => `%${char.charCodeAt(0).toString(16)}`).join("");
}

/** Fails so many handshakes as what a trusted proxy says is this address. */
async function fail(gate: Gate, address: string, times: number): Promise<void> {
  for (let time = 0; time < times; time++) {
    const answer = await gate.knock(UNKNOWN, { "X-Forwarded-For": address });
    expect(codeOf(answer)).toBe("ticket_refused");
  }
}

test("who could be refused without asking others is, also while those can't be heard", async () => {
  const feed: Feed = {
    on() {},
    start() {},
    ready: () => Promise.reject(new Error("Out of reach")),
    wake() {},
    close: async () => {},
  };
  await using server = startServer({ feed });
  const cookie = await server.visitorCookie();
  const statusOf = async (headers: Record<string, string>) =>
    (await sendRaw(server.port, handshake("/ws/chat", headers))).status;
  const Origin = server.origin;
  const host = { Host: Origin.slice("http://".length) };
  expect(await statusOf({ ...host, Origin })).toBe(401);
  expect(await statusOf({ ...host, Cookie: cookie })).toBe(403);
  expect(await statusOf({ ...host, Origin, Cookie: cookie })).toBe(503);
  const ticket = await server.ticket();
  expect((await sendRaw(server.port, handshake(`/ws/chat?ticket=${ticket}`, host))).status).toBe(
    503,
  );
});
