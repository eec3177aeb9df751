import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { toBase64url } from "../../src/lib/encoding.ts";
import type { TicketStore } from "../../src/gate/store.ts";
import type { RefusalCode } from "../../src/request/refusal.ts";
import { underClock } from "../support/clock.ts";
import { codeOf, startWatched, type WatchedServer, ticketFromElsewhere } from "../support/gate.ts";
import { HANDSHAKE, handshake, openRaw, type RawAnswer, sendRaw } from "../support/raw.ts";
import { startServer } from "../support/server.ts";
import { lastingStore } from "../support/store.ts";
import { anyPath, anyQuery } from "../support/text.ts";

/** Written like a ticket, and never issued. */
const UNKNOWN = toBase64url(new Uint8Array(32).fill(1));
const JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

/** Failed handshakes that an address may make in a minute; beyond it, attempts are slowed down. */
const FAILURES = 120;
/** Attempts per second then, as many at once. */
const SLOW = 10;

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
    await using server = startWatched();
    const answer = await server.turnAway((ticket) => write(ticket, fault));
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
    const logged = server.logLines.filter((line) => line.includes('"socket_refused"'));
    // Without a URL there is no telling that a socket was wanted.
    expect(logged).toHaveLength(name === NO_URL ? 0 : 1);
  });

  test("a server that is stopping, before anything else of the handshake counts", async () => {
    const store = lastingStore();
    await using leaving = startWatched({ store });
    await using staying = startWatched({ store });
    const [ticket, held] = [await staying.ticket(), await leaving.ticket()];
    using good = await openRaw(leaving.port);
    using bad = await openRaw(leaving.port);
    const requests = [
      [good, write(ticket)],
      [bad, write(ticket, ({ headers }) => (headers.Origin = "https://evil.test"))],
    ] as const;
    for (const [connection, request] of requests) connection.write(request.slice(0, -2));
    // A handshake in progress, which the stop waits for. The beginnings of the others came before it.
    const { asked, release } = leaving.store.hold();
    const inProgress = leaving.knock(held);
    await asked;
    const stopped = leaving.server.stop();
    for (const [connection, request] of requests) {
      connection.write(request.slice(-2));
      await connection.until((text) => text.includes('"code"'));
      expect(connection.text).toStartWith("HTTP/1.1 503 ");
      expect(connection.text).toContain('"code":"shutting_down"');
    }
    release();
    expect(codeOf(await inProgress)).toBe("shutting_down");
    await underClock(leaving.clock, stopped);
    expect((await staying.knock(ticket)).status).toBe(101);
  });

  test("an address that failed too often", async () => {
    await using server = startWatched({ trustProxy: 1 });
    await fail(server, "192.0.2.1", FAILURES + SLOW);
    const answer = await server.turnAway(
      (ticket) => handshake(`/ws/chat?ticket=${ticket}`, { "X-Forwarded-For": "192.0.2.1" }),
      { ticket: ticketFromElsewhere(server) },
    );
    expect([answer.status, codeOf(answer)]).toEqual([429, "too_many_requests"]);
    expect(answer.headers.get("retry-after")).toBe("1");
  });

  test("neither a ticket nor a cookie", async () => {
    await using server = startWatched();
    const answer = await server.turnAway(() => handshake("/ws/chat"));
    expect([answer.status, codeOf(answer)]).toEqual([401, "session_refused"]);
  });
});

describe("of two faults the lower rung is the one that refuses", () => {
  const pairs = RUNGS.flatMap(([lower, status, code, one], at) =>
    RUNGS.slice(at + 1).map(([upper, , , two]) => ({ lower, upper, status, code, one, two })),
  );
  test.each(pairs)("$lower, then $upper", async ({ status, code, one, two }) => {
    await using server = startWatched();
    const answer = await server.turnAway((ticket) => write(ticket, one, two));
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
  });

  test("and all of them come before the limit of an address", async () => {
    await using server = startWatched({ trustProxy: 1 });
    await fail(server, "192.0.2.1", FAILURES + SLOW);
    for (const [name, status, code, fault] of RUNGS) {
      const answer = await sendRaw(
        server.port,
        write(UNKNOWN, ({ headers }) => (headers["X-Forwarded-For"] = "192.0.2.1"), fault),
      );
      expect([name, answer.status, codeOf(answer)]).toEqual([name, status, code]);
    }
    expect(server.store.takes).toHaveLength(FAILURES + SLOW);
  });
});

describe("the last rungs spend the ticket", () => {
  test("once it is used", async () => {
    await using server = startWatched();
    const ticket = await server.ticket();
    expect((await server.knock(ticket)).status).toBe(101);
    for (const _ of [1, 2]) expect(codeOf(await server.knock(ticket))).toBe("ticket_refused");
  });

  test("when the store gave no usable answer, without asking it again", async () => {
    const store = lastingStore();
    let broken = true;
    await using server = startWatched({
      store: {
        ...store,
        async take(hash) {
          const record = await store.take(hash);
          if (broken) throw new Error("Reply lost");
          return record;
        },
      },
    });
    const ticket = await server.ticket();
    const answer = await server.knock(ticket);
    expect([answer.status, codeOf(answer)]).toEqual([503, "store_unavailable"]);
    expect(server.store.takes).toHaveLength(1);
    broken = false;
    expect(codeOf(await server.knock(ticket))).toBe("ticket_refused");
  });

  test("when the client goes away meanwhile: nothing is opened, and client_gone is logged", async () => {
    let opened = 0;
    await using server = startWatched({ handlers: { open: () => void opened++, message() {} } });
    const ticket = await server.ticket();
    const held = server.store.hold();
    using connection = await openRaw(server.port);
    connection.write(handshake(`/ws/chat?ticket=${ticket}`));
    await held.asked;
    await connection.leave();
    held.release();
    expect(codeOf(await server.knock(ticket))).toBe("ticket_refused");
    const events = server.logLines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.filter(({ event }) => event === "client_gone")).toMatchObject([
      { user: "alice", ticketTag: expect.any(String) },
    ]);
    expect(events.some(({ event }) => event === "socket_opened")).toBe(false);
    expect([opened, server.server.socketCount, connection.text]).toEqual([0, 0, ""]);
  });

  test("when the server starts to leave meanwhile", async () => {
    await using server = startWatched();
    const ticket = await server.ticket();
    const held = server.store.hold();
    const answer = server.knock(ticket);
    await held.asked;
    const stopped = server.server.stop();
    held.release();
    expect(codeOf(await answer)).toBe("shutting_down");
    await underClock(server.clock, stopped);
    expect(server.server.socketCount).toBe(0);
  });
});

describe("a ticket decides alone where there is one", () => {
  /** A visitor's own headers, as a browser on the server's page sends them. */
  async function visiting(server: WatchedServer): Promise<Record<string, string>> {
    const Host = `127.0.0.1:${server.port}`;
    return { Host, Origin: server.origin, Cookie: await server.visitorCookie() };
  }

  /** Whose the last socket is, by the log. */
  function openedAs(server: WatchedServer): { user?: string; visitor?: string } {
    const line = server.logLines.findLast((one) => one.includes('"socket_opened"'));
    const { user, visitor } = JSON.parse(line ?? "{}");
    return { user, visitor };
  }

  test("the cookie by itself is the visitor", async () => {
    await using server = startWatched();
    const headers = await visiting(server);
    expect((await sendRaw(server.port, handshake("/ws/chat", headers))).status).toBe(101);
    expect(openedAs(server)).toEqual({ visitor: headers.Cookie?.split(".")[1] as string });
    expect(server.store.takes).toEqual([]);
  });

  test.each([
    ["an empty one", "", 401],
    ["one that isn't written like one", "x", 401],
    ["an unknown one", UNKNOWN, 401],
    ["a JWT", JWT, 400],
  ])("a good cookie doesn't help beside %s", async (_, ticket, status) => {
    await using server = startWatched();
    const answer = await server.knock(ticket, await visiting(server));
    expect(answer.status).toBe(status);
    expect(server.server.socketCount).toBe(0);
  });

  test("a good ticket beside a good cookie is the user", async () => {
    await using server = startWatched();
    const answer = await server.knock(await server.ticket("bob"), await visiting(server));
    expect(answer.status).toBe(101);
    expect(openedAs(server)).toEqual({ user: "bob" });
  });

  test("a bad cookie doesn't spoil a good ticket", async () => {
    await using server = startWatched();
    const answer = await server.knock(await server.ticket("bob"), {
      Cookie: "anonSessionId=forged",
    });
    expect(answer.status).toBe(101);
    expect(openedAs(server)).toEqual({ user: "bob" });
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
    ["8 KB", (ticket) => ticket.repeat(188)],
    ["encoded twice", (ticket) => encode(ticket).replaceAll("%", "%25")],
    ["encoded three times", (ticket) => encode(ticket).replaceAll("%", "%2525")],
    [
      "its first letter encoded twice",
      (ticket) => encode(ticket.slice(0, 1)).replace("%", "%25") + ticket.slice(1),
    ],
  ];
  test.each(cases)("%s", async (_, value) => {
    await using server = startWatched();
    const answer = await server.turnAway((ticket) => handshake(`/ws/chat?ticket=${value(ticket)}`));
    expect([answer.status, codeOf(answer)]).toEqual([401, "ticket_refused"]);
  });

  test("a ticket longer than a URL may be", async () => {
    await using server = startWatched();
    const answer = await server.turnAway((ticket) =>
      handshake(`/ws/chat?ticket=${ticket.repeat(350)}`),
    );
    expect([answer.status, codeOf(answer)]).toEqual([400, "malformed_request"]);
  });

  test("a ticket that is encoded once is the same ticket", async () => {
    await using server = startWatched();
    const ticket = await server.ticket();
    expect((await server.knock(encode(ticket))).status).toBe(101);
    expect(codeOf(await server.knock(ticket))).toBe("ticket_refused");
  });

  const several: [name: string, query: (ticket: string) => string][] = [
    ["a good one and a bad one", (ticket) => `ticket=${ticket}&ticket=bad`],
    ["a bad one and a good one", (ticket) => `ticket=bad&ticket=${ticket}`],
    ["a good one and an empty one", (ticket) => `ticket=${ticket}&ticket`],
    ["the same three times", (ticket) => `ticket=${ticket}&ticket=${ticket}&ticket=${ticket}`],
    ["the same in two spellings", (ticket) => `ticket=${ticket}&%74icket=${ticket}`],
  ];
  test.each(several)("several tickets: %s", async (_, query) => {
    await using server = startWatched();
    const answer = await server.turnAway((ticket) => handshake(`/ws/chat?${query(ticket)}`));
    expect([answer.status, codeOf(answer)]).toEqual([400, "malformed_request"]);
  });

  test.each([
    ...["token", "TOKEN", "%74oken", "%2574oken", "access_token", "jwt", "anonSessionId"],
    ...["ws_ticket", "Ticket", "anonsessionid", "auth%2dtoken"],
  ])("%s is no way in, and not beside a ticket either", async (name) => {
    await using server = startWatched();
    for (const query of [`${name}=x`, `${name}=${JWT}`]) {
      const beside = await server.turnAway((ticket) =>
        handshake(`/ws/chat?ticket=${ticket}&${query}`),
      );
      expect([beside.status, codeOf(beside)]).toEqual([400, "credential_in_url"]);
      const alone = await server.turnAway(() => handshake(`/ws/chat?${query}`));
      expect([alone.status, codeOf(alone)]).toEqual([400, "credential_in_url"]);
    }
  });

  test.each(["/", "/api/auth/ws-ticket", "/healthz"])(
    "a ticket at %s, where no socket is",
    async (path) => {
      await using server = startWatched();
      const answer = await server.turnAway((ticket) => handshake(`${path}?ticket=${ticket}`));
      expect(answer.status).not.toBe(101);
    },
  );

  test("a ticket anywhere but in the query", async () => {
    await using server = startWatched();
    for (const headers of [
      (ticket: string) => ({ Authorization: `Bearer ${ticket}` }),
      (ticket: string) => ({ Authorization: `Ticket ${ticket}` }),
      (ticket: string) => ({ Cookie: `ticket=${ticket}; anonSessionId=${ticket}`, Origin: "x" }),
      (ticket: string) => ({ "Sec-WebSocket-Protocol": ticket }),
      (ticket: string) => ({ "X-Ticket": ticket }),
    ]) {
      const answer = await server.turnAway((ticket) => handshake("/ws/chat", headers(ticket)));
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
    await using server = startWatched();
    const ticket = await server.ticket();
    const headers = { "Sec-WebSocket-Protocol": offer(ticket) };
    const answer = await server.knock(ticket, headers);
    expect(answer.status).toBe(101);
    expect(answer.headers.get("sec-websocket-protocol") ?? "").toBe("");
    expect(answer.text).not.toContain(ticket);
    expect(server.store.takes).toHaveLength(1);
    const without = await server.turnAway((other) =>
      handshake("/ws/chat", { "Sec-WebSocket-Protocol": offer(other) }),
    );
    expect([without.status, codeOf(without)]).toEqual([401, "session_refused"]);
    expect(without.headers.has("sec-websocket-protocol")).toBe(false);
  });
});

describe("visitors who connect again and again", () => {
  /** Of one visitor a minute, by default, and of all at one address. */
  const [PER_VISITOR, PER_ADDRESS, WINDOW_MS] = [60, 600, 60_000];

  function start() {
    const server = startWatched({
      ...{ trustProxy: 1, ticketsPerMinute: undefined },
      limits: { maxPerIdentity: 0, maxPerAddress: 0 },
    });
    const knock = async (Cookie: string, address: string) => {
      const Host = `127.0.0.1:${server.port}`;
      const headers = { Host, Origin: server.origin, Cookie, "X-Forwarded-For": address };
      return sendRaw(server.port, handshake("/ws/chat", headers));
    };
    return Object.assign(server, { knock });
  }

  test("have to wait, wherever they are, and no other visitor with them", async () => {
    await using server = start();
    const [cookie, other] = [await server.visitorCookie(), await server.visitorCookie()];
    for (let n = 0; n < PER_VISITOR; n++) {
      expect((await server.knock(cookie, `192.0.2.${n}`)).status).toBe(101);
    }
    for (let n = 0; n < 100; n++) {
      const { status, headers } = await server.knock(cookie, "192.0.2.1");
      expect([status, headers.get("retry-after")]).toEqual([429, "1"]);
    }
    // They take nothing of what others at the address may do, beside the one above.
    for (let n = 1; n < PER_ADDRESS; n++) {
      const who = n % 10 === 0 ? other : await server.visitorCookie();
      expect((await server.knock(who, "192.0.2.1")).status).toBe(101);
    }
    // Nor do they count as bad credentials, after which others at the address would have to wait, too.
    for (let n = 0; n < 20; n++) {
      const headers = { "X-Forwarded-For": "192.0.2.1" };
      const answer = await sendRaw(server.port, handshake(`/ws/chat?ticket=${UNKNOWN}`, headers));
      expect(answer.status).toBe(401);
    }
    server.clock.advance(60_000 / PER_VISITOR);
    expect((await server.knock(cookie, "192.0.2.1")).status).toBe(101);
    expect((await server.knock(cookie, "192.0.2.1")).status).toBe(429);
  });

  test("with a new cookie each time, have to wait together", async () => {
    await using server = start();
    const cookies = await Promise.all(Array.from({ length: 12 }, () => server.visitorCookie()));
    let opened = 0;
    for (const cookie of cookies) {
      for (let n = 0; n < PER_VISITOR; n++) {
        if ((await server.knock(cookie, "192.0.2.1")).status === 101) opened++;
      }
    }
    expect(opened).toBe(PER_ADDRESS);
    const fresh = await server.visitorCookie();
    expect((await server.knock(fresh, "192.0.2.1")).status).toBe(429);
    expect((await server.knock(fresh, "192.0.2.2")).status).toBe(101);
    expect((await server.knock(fresh, "127.0.0.1")).status).toBe(101);
    server.clock.advance(WINDOW_MS / PER_ADDRESS);
    expect((await server.knock(fresh, "192.0.2.1")).status).toBe(101);
  });

  test("don't when there is no limit of tickets either", async () => {
    await using server = startServer({ limits: { maxPerIdentity: 0 } });
    const cookie = await server.visitorCookie();
    for (let n = 0; n < 2 * PER_VISITOR; n++) {
      await using socket = await server.openVisitor(cookie);
      expect(socket.socket.readyState).toBe(WebSocket.OPEN);
    }
  });
});

describe("failed handshakes per address", () => {
  const from = { "X-Forwarded-For": "192.0.2.1" };

  test("slow that address down, other processes' tickets included, for as long as Retry-After says", async () => {
    await using server = startWatched({ trustProxy: 1 });
    await fail(server, "192.0.2.1", FAILURES);
    // Slowed down, and not locked out: ten at once are within ten a second.
    for (let time = 0; time < SLOW; time++) {
      expect((await server.knock(await ticketFromElsewhere(server), from)).status).toBe(101);
    }
    const ticket = await ticketFromElsewhere(server);
    const refused = await server.knock(ticket, from);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
    server.clock.advance(1_000 / SLOW - 1);
    expect((await server.knock(ticket, from)).status).toBe(429);
    server.clock.advance(1);
    expect((await server.knock(ticket, from)).status).toBe(101);
    expect((await server.knock(await ticketFromElsewhere(server), from)).status).toBe(429);
  });

  test("don't slow down tickets that this process has issued, tokens and cookies, while they go on and on", async () => {
    await using server = startWatched({ trustProxy: 1, limits: { maxPerIdentity: 0 } });
    await fail(server, "192.0.2.1", FAILURES + SLOW);
    const headers = { ...from, Authorization: `Bearer ${await server.token()}` };
    const url = `${server.origin}/api/auth/ws-ticket`;
    const cookie = await server.visitorCookie();
    const visiting = { ...from, Host: `127.0.0.1:${server.port}`, Origin: server.origin };
    const visit = (Cookie: string) =>
      sendRaw(server.port, handshake("/ws/chat", { ...visiting, Cookie }));
    for (let round = 0; round < 2 * SLOW; round++) {
      expect((await server.knock(UNKNOWN, from)).status).toBe(429);
      const minted = await fetch(url, { method: "POST", headers });
      const { ticket } = (await minted.json()) as { ticket: string };
      expect((await server.knock(ticket, from)).status).toBe(101);
      // Once: what is spent is as good as any other.
      expect((await server.knock(ticket, from)).status).toBe(429);
      expect((await visit(cookie)).status).toBe(101);
      expect((await visit(cookie.slice(0, -1))).status).toBe(429);
    }
  });

  test("never make it wait for longer than that, however many there were", async () => {
    await using server = startWatched({ trustProxy: 1 });
    for (let second = 0; second < 3; second++) {
      for (let time = 0; time < FAILURES + SLOW; time++) {
        const answer = await server.knock(UNKNOWN, from);
        expect([401, 429]).toContain(answer.status);
      }
      const refused = await server.knock(await ticketFromElsewhere(server), from);
      expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
      server.clock.advance(1_000);
      expect((await server.knock(await ticketFromElsewhere(server), from)).status).toBe(101);
    }
  });

  test("are forgotten within a minute, whether or not attempts were refused meanwhile", async () => {
    await using server = startWatched({ trustProxy: 1 });
    await fail(server, "192.0.2.1", FAILURES + SLOW);
    for (let time = 0; time < 50; time++) {
      expect((await server.knock(UNKNOWN, from)).status).toBe(429);
    }
    server.clock.advance(60_000);
    expect(await attemptsOf(server, "192.0.2.1")).toBe("all");
  });

  test("don't affect any other address", async () => {
    await using server = startWatched({ trustProxy: 1 });
    await fail(server, "192.0.2.1", FAILURES + SLOW);
    for (const other of ["192.0.2.2", "2001:db8::1", "192.0.2.1, 192.0.2.3"]) {
      const answer = await server.knock(await server.ticket(), { "X-Forwarded-For": other });
      expect([other, answer.status]).toEqual([other, 101]);
    }
  });

  test("count for a whole IPv6 network, and for no other", async () => {
    await using server = startWatched({ trustProxy: 1 });
    for (let host = 0; host < FAILURES + SLOW; host++) {
      await fail(server, `2001:db8:0:1::${host.toString(16)}`, 1);
    }
    const knockFrom = async (address: string) => {
      const ticket = await ticketFromElsewhere(server);
      return (await server.knock(ticket, { "X-Forwarded-For": address })).status;
    };
    expect(await knockFrom("2001:db8:0:1:ffff:ffff:ffff:ffff")).toBe(429);
    expect(await knockFrom("2001:DB8::1:0:0:0:1")).toBe(429);
    expect(await knockFrom("2001:db8:0:2::1")).toBe(101);
  });

  test.each<[string, (server: WatchedServer) => Promise<RawAnswer>]>([
    ["an unknown ticket", (server) => server.knock(UNKNOWN, from)],
    ["a malformed ticket", (server) => server.knock("x", from)],
    ["neither ticket nor cookie", ({ port }) => sendRaw(port, handshake("/ws/chat", from))],
    [
      "a forged cookie",
      ({ port, origin }) => {
        const Cookie = `anonSessionId=v1.${"A".repeat(22)}.1767225600.${"A".repeat(43)}`;
        const headers = { Host: `127.0.0.1:${port}`, Origin: origin, Cookie, ...from };
        return sendRaw(port, handshake("/ws/chat", headers));
      },
    ],
  ])("count with %s", async (_, send) => {
    await using server = startWatched({ trustProxy: 1 });
    for (let time = 0; time < FAILURES; time++) expect((await send(server)).status).toBe(401);
    expect(await attemptsOf(server, "192.0.2.1")).toBe("slowed");
  });

  test.each<[string, number, (server: WatchedServer) => Promise<string>, object]>([
    ["they succeed", 101, (server) => server.ticket(), {}],
    ["the origin is refused", 403, async () => UNKNOWN, { Origin: "https://evil.test" }],
    ["there is a JWT in the URL", 400, async () => JWT, {}],
  ])("don't count when %s", async (_, expected, ticketOf, headers) => {
    await using server = startWatched({ trustProxy: 1, limits: { maxPerIdentity: 0 } });
    for (let time = 0; time < FAILURES; time++) {
      const { status } = await server.knock(await ticketOf(server), { ...from, ...headers });
      expect(status).toBe(expected);
    }
    expect(await attemptsOf(server, "192.0.2.1")).toBe("all");
  });

  test("are shared with tokens that don't verify", async () => {
    await using server = startWatched({ trustProxy: 1 });
    const mint = (token: string) =>
      fetch(`${server.origin}/api/auth/ws-ticket`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, ...from },
      });
    const statuses: number[] = [];
    for (let time = 0; time < FAILURES + SLOW; time++) statuses.push((await mint(JWT)).status);
    expect(new Set(statuses)).toEqual(new Set([401]));
    expect((await mint(JWT)).status).toBe(429);
    expect((await server.knock(await ticketFromElsewhere(server), from)).status).toBe(429);
  });

  test("can't be blamed on others, nor spread over many, by a forged header", async () => {
    await using server = startWatched();
    const knock = (address: string, forged: string, ticket = UNKNOWN) =>
      server.gate.admit(
        new Request(`${server.origin}/ws/chat?ticket=${ticket}`, {
          headers: { ...HANDSHAKE, "X-Forwarded-For": forged, "X-Real-IP": forged },
        }),
        { socketAddress: address },
      );
    for (let time = 0; time < FAILURES + SLOW; time++) {
      const refused = await knock("192.0.2.1", time % 2 ? "192.0.2.9" : `198.51.100.${time}`);
      expect(refused).toEqual({ ok: false, code: "ticket_refused" });
    }
    const ticket = await ticketFromElsewhere(server);
    expect(await knock("192.0.2.1", "203.0.113.1", ticket)).toMatchObject({
      code: "too_many_requests",
    });
    expect(await knock("192.0.2.9", "192.0.2.1", ticket)).toMatchObject({ ok: true });
  });

  test("through a proxy on this machine that isn't trusted to name others never slow it down", async () => {
    await using server = startWatched();
    await fail(server, "192.0.2.1", FAILURES + SLOW + 1);
    expect((await server.knock(await server.ticket())).status).toBe(101);
  });

  test("aren't counted where the address isn't known", async () => {
    await using server = startServer();
    const request = () =>
      new Request(`${server.origin}/ws/chat?ticket=${UNKNOWN}`, { headers: HANDSHAKE });
    for (let time = 0; time < FAILURES + SLOW + 1; time++) {
      expect(await server.gate.admit(request())).toEqual({ ok: false, code: "ticket_refused" });
    }
  });
});

describe("gate.admit", () => {
  test("returns the identity, and a tag for the log that is no ticket", async () => {
    await using server = startServer();
    const ticket = await server.ticket("bob");
    const request = new Request(`${server.origin}/ws/chat?ticket=${ticket}`, {
      headers: HANDSHAKE,
    });
    const admitted = await server.gate.admit(request);
    expect(admitted).toMatchObject({
      ok: true,
      identity: { kind: "user", id: "bob", expiresAtMs: server.clock.nowMs() + 3_600_000 },
      ticketTag: expect.stringMatching(/^[0-9a-f]{6}$/),
    });
    expect(await server.gate.admit(request)).toEqual({ ok: false, code: "ticket_refused" });
  });

  test("reads the address only where a limit needs it", async () => {
    await using server = startServer();
    let reads = 0;
    const connection = {
      get socketAddress() {
        reads++;
        return "192.0.2.1";
      },
    };
    const knock = (ticket: string) =>
      server.gate.admit(
        new Request(`${server.origin}/ws/chat?ticket=${ticket}`, { headers: HANDSHAKE }),
        connection,
      );
    expect(await knock(await server.ticket())).toMatchObject({ ok: true });
    expect(reads).toBe(0);
    expect(await knock(UNKNOWN)).toMatchObject({ code: "ticket_refused" });
    expect(reads).toBeGreaterThan(0);
  });

  test("never throws, and admits nothing without a ticket or a cookie", async () => {
    await using server = startServer();
    const header = fc.stringMatching(/^[!-~]{0,40}$/);
    await fc.assert(
      fc.asyncProperty(
        anyPath(),
        fc.oneof(anyQuery(), header),
        fc.dictionary(
          fc.constantFrom(
            ...[...Object.keys(HANDSHAKE), "Origin", "Cookie", "Host", "X-Forwarded-For"],
            ...["Sec-WebSocket-Protocol", "Authorization", "Content-Length", "Expect"],
          ),
          header,
        ),
        fc.option(fc.oneof(fc.ipV4(), fc.ipV6(), header), { nil: undefined }),
        async (path, query, headers, socketAddress) => {
          const url = URL.parse(`${server.origin}${path}?${query}`);
          fc.pre(url !== null);
          const request = new Request(url as URL, { headers: { ...HANDSHAKE, ...headers } });
          expect((await server.gate.admit(request, { socketAddress })).ok).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("while revocations by other processes can't be read", () => {
  const store: TicketStore = {
    ...memoryTicketStore(),
    revocations: {
      subscribe() {},
      ready: () => Promise.reject(new Error("Out of reach")),
      isFailing: true,
    },
  };

  test("good tickets and cookies are store_unavailable, what is refused without the store stays so", async () => {
    await using server = startServer({ store });
    const cookie = await server.visitorCookie();
    const Origin = server.origin;
    const host = { Host: Origin.slice("http://".length) };
    const codesOf = async (target: string, headers: Record<string, string>) => {
      const answer = await sendRaw(server.port, handshake(target, { ...host, ...headers }));
      return [answer.status, codeOf(answer)];
    };
    const forged = `${cookie.slice(0, -4)}AAAA`;
    expect(await codesOf("/ws/chat", { Origin })).toEqual([401, "session_refused"]);
    expect(await codesOf("/ws/chat", { Origin, Cookie: forged })).toEqual([401, "session_refused"]);
    expect(await codesOf("/ws/chat", { Cookie: cookie })).toEqual([403, "origin_refused"]);
    expect(await codesOf("/ws/chat?ticket=x", {})).toEqual([401, "ticket_refused"]);
    const unavailable = [503, "store_unavailable"];
    expect(await codesOf("/ws/chat", { Origin, Cookie: cookie })).toEqual(unavailable);
    const ticket = await server.ticket();
    expect(await codesOf(`/ws/chat?ticket=${ticket}`, {})).toEqual(unavailable);
    // It wasn't spent.
    expect(await server.parts.tickets.redeem(ticket)).toMatchObject({ ok: true });
  });
});

/** Percent-encodes every character. */
function encode(text: string): string {
  return Array.from(text, (char) => `%${char.charCodeAt(0).toString(16)}`).join("");
}

/** Fails so many handshakes from this address, as a trusted proxy reports it. */
async function fail(server: WatchedServer, address: string, times: number): Promise<void> {
  for (let time = 0; time < times; time++) {
    const answer = await server.knock(UNKNOWN, { "X-Forwarded-For": address });
    expect(codeOf(answer)).toBe("ticket_refused");
  }
}

/** Whether an address is slowed down: of one attempt more than a slowed-down one may make at once, all were let through. */
async function attemptsOf(server: WatchedServer, address: string): Promise<"all" | "slowed"> {
  const headers = { "X-Forwarded-For": address };
  for (let time = 0; time < SLOW; time++) {
    expect((await server.knock(UNKNOWN, headers)).status).toBe(401);
  }
  return (await server.knock(UNKNOWN, headers)).status === 429 ? "slowed" : "all";
}
