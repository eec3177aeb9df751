import { describe, expect, test } from "bun:test";
import { createGate, partsOf } from "../../src/gate/gate.ts";
import type { GateOptions } from "../../src/gate/gate-options.ts";
import { memoryTicketStore } from "../../src/gate/memory.ts";
import { signToken } from "../../src/gate/token.ts";
import { fakeClock } from "../support/clock.ts";
import { BARE_ORIGIN, bareGate, expectRefusal } from "../support/gate.ts";
import { HANDSHAKE } from "../support/raw.ts";

const TICKETS = "/api/auth/ws-ticket";
const SESSIONS = "/api/auth/anonymous-session";
const SECRET = "a string secret of 32 bytes, or more";
const OTHER_SECRET = "another secret of 32 bytes, or more";

/** Options that a program without types could pass. */
type Loose = { [name in keyof GateOptions]?: unknown };

function make(options: Loose): void {
  createGate({ users: { secret: SECRET }, ...options } as GateOptions);
}

/** What `createGate` throws: the class and the message of the error. */
function faultOf(options: Loose): { type: string; message: string } {
  try {
    make(options);
  } catch (error) {
    const { name, message } = error as Error;
    return { type: name, message };
  }
  return { type: "none", message: "" };
}

describe("secrets as strings", () => {
  const mint = (gate: ReturnType<typeof bareGate>, token: string) =>
    gate.send(TICKETS, { method: "POST", headers: { Authorization: `Bearer ${token}` } });

  test("are their UTF-8 bytes", async () => {
    const secret = "päßwörter und 漢字, 32 bytes or more";
    const expiresAtMs = fakeClock().nowMs() + 60_000;
    for (const one of [secret, new TextEncoder().encode(secret)]) {
      for (const two of [secret, new TextEncoder().encode(secret)]) {
        const token = await signToken({ secret: one, user: "alice", expiresAtMs });
        expect((await mint(bareGate({ users: { secret: two } }), token)).status).toBe(200);
      }
    }
  });

  test("of two gates that differ: neither takes the other's tokens", async () => {
    const expiresAtMs = fakeClock().nowMs() + 60_000;
    const [one, two] = [SECRET, OTHER_SECRET].map((secret) => bareGate({ users: { secret } }));
    const [ones, twos] = await Promise.all(
      [SECRET, OTHER_SECRET].map((secret) => signToken({ secret, user: "alice", expiresAtMs })),
    );
    for (const [gate, own, others] of [
      [one, ones, twos],
      [two, twos, ones],
    ] as const) {
      expect((await mint(gate as never, own as string)).status).toBe(200);
      await expectRefusal(await mint(gate as never, others as string), 401, "token_invalid");
    }
  });

  test("of two gates that differ: neither takes the other's cookies", async () => {
    const [one, two] = [SECRET, OTHER_SECRET].map((secret) => bareGate({ visitors: { secret } }));
    const cookieOf = async (gate: ReturnType<typeof bareGate>) =>
      (await gate.send(SESSIONS, { method: "POST" })).headers
        .get("set-cookie")
        ?.split(";")[0] as string;
    const admit = ({ gate }: ReturnType<typeof bareGate>, Cookie: string) => {
      const headers = { ...HANDSHAKE, Origin: BARE_ORIGIN, Cookie };
      return gate.admit(new Request(`${BARE_ORIGIN}/live`, { headers }));
    };
    const [ones, twos] = [await cookieOf(one as never), await cookieOf(two as never)];
    for (const [gate, own, others] of [
      [one, ones, twos],
      [two, twos, ones],
    ] as const) {
      expect(await admit(gate as never, own)).toMatchObject({ ok: true });
      expect(await admit(gate as never, others)).toEqual({ ok: false, code: "session_refused" });
    }
  });

  test("are copied: a caller who overwrites its own changes nothing", async () => {
    const secret = new TextEncoder().encode(SECRET);
    const gate = bareGate({ users: { secret }, visitors: { secret } });
    secret.fill(0);
    const expiresAtMs = fakeClock().nowMs() + 60_000;
    const token = await signToken({ secret: SECRET, user: "alice", expiresAtMs });
    expect((await mint(gate, token)).status).toBe(200);
  });

  const faults: [what: string, secret: unknown, type: string][] = [
    ["undefined", undefined, "TypeError"],
    ["null", null, "TypeError"],
    ["a number", 12_345_678, "TypeError"],
    ["an array of bytes", Array.from({ length: 32 }, (_, at) => at), "TypeError"],
    ["an ArrayBuffer", new ArrayBuffer(32), "TypeError"],
    ["an object", { toString: () => SECRET }, "TypeError"],
    ["empty", "", "RangeError"],
    ["31 characters", SECRET.slice(0, 31), "RangeError"],
    ["31 bytes", new TextEncoder().encode(SECRET).slice(0, 31), "RangeError"],
    ["no bytes", new Uint8Array(), "RangeError"],
    ["one character repeated", "a".repeat(64), "RangeError"],
    ["one byte repeated", new Uint8Array(64).fill(7), "RangeError"],
    ["zeros", new Uint8Array(32), "RangeError"],
  ];
  test.each(faults)("that are %s throw for visitors", (_, secret, type) => {
    const fault = faultOf({ visitors: { secret } });
    expect(fault).toEqual({
      type,
      message: expect.stringMatching(/^Option visitors\.secret must /),
    });
    if (typeof secret === "string" && secret) expect(fault.message).not.toContain(secret);
  });
  test.each(faults)("that are %s throw for users", (_, secret, type) => {
    const fault = faultOf({ users: { secret } });
    // Without a secret there may have been meant to be a URL.
    const option = secret === undefined ? /^Option users must / : /^Option users\.secret must /;
    expect(fault).toEqual({ type, message: expect.stringMatching(option) });
    if (typeof secret === "string" && secret) expect(fault.message).not.toContain(secret);
  });

  test("of 32 bytes are long enough", () => {
    for (const secret of [SECRET.slice(0, 32), "é".repeat(15) + "ab"]) {
      expect(faultOf({ users: { secret }, visitors: { secret } }).type).toBe("none");
    }
  });
});

describe("users", () => {
  const url = "https://id.example.com/jwks.json";
  test.each<[string, unknown]>([
    ["nothing", undefined],
    ["null", null],
    ["a string", SECRET],
    ["a number", 7],
    ["true", true],
  ])("that are %s throw", (_, users) => {
    expect(faultOf({ users })).toEqual({
      type: "TypeError",
      message: "Option users must be a function, or have a secret, a jwksUrl or publicKeys",
    });
  });

  test.each<[string, unknown]>([
    ["neither key", {}],
    ["neither key, but an issuer", { issuer: "https://id.example.com" }],
    ["both keys", { secret: SECRET, jwksUrl: url }],
    ["a list", []],
  ])("with %s throw", (_, users) => {
    expect(faultOf({ users })).toEqual({
      type: "TypeError",
      message: "Option users must have either a secret, a jwksUrl or publicKeys",
    });
  });

  test.each<[string, unknown]>([
    ["plain http", "http://id.example.com/jwks.json"],
    ["plain http to an address", "http://192.0.2.1/jwks.json"],
    ["plain http to a name like loopback", "http://localhost.example.com/jwks.json"],
    ["a URL object with plain http", new URL("http://id.example.com/jwks.json")],
    ["no URL", "id.example.com/jwks.json"],
    ["an empty string", ""],
    ["a file", "file:///etc/keys.json"],
    ["data", 'data:application/json,{"keys":[]}'],
    ["credentials in it", "https://user:password@id.example.com/jwks.json"],
    ["a number", 7],
    ["null", null],
    ["an object that reads like one", { toString: () => url }],
  ])("with a jwksUrl that is %s throw", (_, jwksUrl) => {
    const { type, message } = faultOf({ users: { jwksUrl } });
    expect([type, message]).toEqual([
      "TypeError",
      expect.stringMatching(/^Option users\.jwksUrl must /),
    ]);
    expect(message).not.toContain("password");
  });

  test.each<unknown>([
    url,
    new URL(url),
    "http://127.0.0.1:8080/jwks.json",
    "http://localhost/jwks.json",
    "http://[::1]:8080/jwks.json",
  ])("with the jwksUrl %s don't", (jwksUrl) => {
    expect(faultOf({ users: { jwksUrl } }).type).toBe("none");
  });

  test("with an audience empty, or no string, throw", () => {
    for (const audience of ["", 7, null, {}, [], [""], ["chat", 7]]) {
      expect(faultOf({ users: { secret: SECRET, audience } })).toEqual({
        type: "TypeError",
        message: "Option users.audience must be a string, or a list of strings",
      });
    }
    for (const audience of ["chat", ["chat"], ["chat", "mobile"]]) {
      expect(faultOf({ users: { secret: SECRET, audience } }).type).toBe("none");
    }
  });

  test.each(["issuer", "userClaim"])("with the option %s empty, or no string, throw", (name) => {
    for (const value of ["", 7, null, {}]) {
      expect(faultOf({ users: { secret: SECRET, [name]: value } })).toEqual({
        type: "TypeError",
        message: `Option users.${name} must be a string`,
      });
    }
    expect(faultOf({ users: { secret: SECRET, [name]: "text" } }).type).toBe("none");
  });
});

describe("origins and publicUrl", () => {
  test.each<[string, unknown]>([
    ["a trailing slash", ["https://app.example.com/"]],
    ["a path", ["https://app.example.com/chat"]],
    ["capital letters", ["https://App.example.com"]],
    ["its default port", ["https://app.example.com:443"]],
    ["a pattern", ["https://*.example.com"]],
    ["an asterisk", ["*"]],
    ["null, as sandboxed frames send it", ["null"]],
    ["no scheme", ["app.example.com"]],
    ["another scheme", ["wss://app.example.com"]],
    ["one good and one bad", ["https://app.example.com", "https://app.example.com/"]],
    ["a URL object", [new URL("https://app.example.com")]],
    ["a number", [7]],
    ["a string in place of the list", "https://app.example.com"],
    ["a set in place of the list", new Set(["https://app.example.com"])],
    ["null in place of the list", null],
  ])("origins with %s throw", (_, origins) => {
    expect(faultOf({ origins })).toEqual({
      type: "TypeError",
      message: "Option origins must be exact origins such as https://example.com",
    });
  });

  test("an empty list of origins is a list: no page is allowed", async () => {
    const { send } = bareGate({ origins: [] });
    const response = await send(SESSIONS, { method: "POST", headers: { Origin: BARE_ORIGIN } });
    await expectRefusal(response, 403, "origin_refused");
  });

  test("origins are copied: a list that is changed later changes nothing", async () => {
    const origins = ["https://app.example.com"];
    const { send } = bareGate({ origins });
    origins.push("https://evil.example");
    const headers = { Origin: "https://evil.example" };
    await expectRefusal(await send(SESSIONS, { method: "POST", headers }), 403, "origin_refused");
  });

  test.each<[string, unknown]>([
    ["two slashes in its path", "https://chat.example.com/a//b"],
    ["an escape in its path", "https://chat.example.com/a%2Fb"],
    ["a query", "https://chat.example.com/?a=b"],
    ["a fragment", "https://chat.example.com/#a"],
    ["credentials", "https://user:password@chat.example.com"],
    ["plain http", "http://chat.example.com"],
    ["another scheme", "wss://chat.example.com"],
    ["no scheme", "chat.example.com"],
    ["nothing in it", ""],
    ["a number in place of it", 7],
    ["null in place of it", null],
    ["a URL object with a query", new URL("https://chat.example.com/chat?a")],
  ])("a publicUrl with %s throws", (_, publicUrl) => {
    expect(faultOf({ publicUrl })).toEqual({
      type: "TypeError",
      message: expect.stringMatching(/^Option publicUrl must /),
    });
  });

  test.each<unknown>([
    "https://chat.example.com",
    "https://chat.example.com/",
    "https://chat.example.com:8443",
    new URL("https://chat.example.com"),
    "http://localhost:8080",
    "https://example.com/chat",
    "https://example.com/a/b.c/",
  ])("the publicUrl %s doesn't", (publicUrl) => {
    expect(faultOf({ publicUrl }).type).toBe("none");
  });
});

describe("strictTransport", () => {
  test.each<unknown>(["", true, 7, null, "includeSubDomains", "max-age=1\r\nX: y", "max-age=1; x"])(
    "%p throws",
    (strictTransport) => {
      expect(faultOf({ strictTransport })).toEqual({
        type: "TypeError",
        message: "Option strictTransport must be like max-age=31536000, or false",
      });
    },
  );

  test.each<unknown>([
    false,
    undefined,
    "max-age=0",
    "max-age=63072000; includeSubDomains; preload",
  ])("%p doesn't", (strictTransport) => {
    expect(faultOf({ strictTransport }).type).toBe("none");
  });
});

describe("numbers", () => {
  test.each<[keyof GateOptions, unknown, string]>([
    ["ticketTtlMs", 999, "RangeError"],
    ["ticketTtlMs", 1_000, "none"],
    ["ticketTtlMs", 300_000, "none"],
    ["ticketTtlMs", 300_001, "RangeError"],
    ["ticketTtlMs", 0, "RangeError"],
    ["ticketTtlMs", -30_000, "RangeError"],
    ["ticketTtlMs", 1_500.5, "RangeError"],
    ["ticketTtlMs", Number.NaN, "RangeError"],
    ["ticketTtlMs", Number.POSITIVE_INFINITY, "RangeError"],
    ["ticketTtlMs", "30000", "TypeError"],
    ["ticketTtlMs", 30_000n, "TypeError"],
    ["ticketsPerMinute", -1, "RangeError"],
    ["ticketsPerMinute", 0, "none"],
    ["ticketsPerMinute", 1_000_000, "none"],
    ["ticketsPerMinute", 1_000_001, "RangeError"],
    ["ticketsPerMinute", 0.5, "RangeError"],
    ["ticketsPerMinute", Number.POSITIVE_INFINITY, "RangeError"],
    ["ticketsPerMinute", "60", "TypeError"],
    ["trustProxy", -1, "RangeError"],
    ["trustProxy", 0, "none"],
    ["trustProxy", 10, "none"],
    ["trustProxy", 11, "RangeError"],
    ["trustProxy", 1.5, "RangeError"],
    ["trustProxy", true, "TypeError"],
    ["trustProxy", "1", "TypeError"],
  ])("%s: %p", (option, value, type) => {
    const fault = faultOf({ [option]: value });
    expect(fault.type).toBe(type);
    if (type !== "none") expect(fault.message).toStartWith(`Option ${option} must be `);
  });

  test("ticketTtlMs is how long tickets live, to the millisecond", async () => {
    const { gate, clock } = bareGate({ ticketTtlMs: 300_000 });
    const issue = async () => {
      const issued = await gate.issue({ user: "alice", expiresAtMs: clock.nowMs() + 3_600_000 });
      if (!issued.ok) throw new Error(issued.code);
      expect(issued.expiresInSeconds).toBe(300);
      return issued.ticket;
    };
    const [one, two] = [await issue(), await issue()];
    clock.advance(299_999);
    expect(await gate.redeem(one)).toMatchObject({ ok: true });
    clock.advance(1);
    expect(await gate.redeem(two)).toMatchObject({ code: "ticket_refused" });
  });
});

describe("basePath", () => {
  test.each<unknown>([
    ...["", "/", "api", "api/auth", "/api/auth/", "//api", "/api//auth", "/api/:id", "/api/*"],
    ...["/api?x", "/api#x", "/a b", "/ä", "/%61pi", "/api\n", "/..", "/.", "/api/../auth"],
    ...["https://example.com/api", 7, true, [["/api"]]],
  ])("%p throws", (basePath) => {
    expect(faultOf({ basePath })).toEqual({
      type: "TypeError",
      message: "Option basePath must be a path such as /api/auth, without a trailing slash",
    });
  });

  test.each(["/a", "/api/v1.0/auth", "/a-b_c~d", "/.well-known/ws", "/..a"])(
    "%s doesn't",
    (basePath) => {
      expect(faultOf({ basePath }).type).toBe("none");
      expect(bareGate({ basePath }).gate.basePath).toBe(basePath);
    },
  );
});

describe("store, clock, log and randomBytes", () => {
  const methods = ["put", "take", "revoke", "isRevoked", "close"] as const;
  test.each(methods)("a store without %s throws", (method) => {
    for (const value of [undefined, "text", {}]) {
      expect(faultOf({ store: { ...memoryTicketStore(), [method]: value } })).toEqual({
        type: "TypeError",
        message: `Option store must have a method ${method}`,
      });
    }
  });

  test("a store that is none at all throws", () => {
    for (const store of ["memory", 7, {}, []]) {
      expect(faultOf({ store })).toEqual({
        type: "TypeError",
        message: "Option store must have a method put",
      });
    }
  });

  test.each(["nowMs", "monotonicMs", "every", "after"])("a clock without %s throws", (method) => {
    expect(faultOf({ clock: { ...fakeClock(), [method]: undefined } })).toEqual({
      type: "TypeError",
      message: `Option clock must have a method ${method}`,
    });
  });

  test.each(["log", "randomBytes"])("a %s that is no function throws", (option) => {
    for (const value of ["debug", {}, 7]) {
      expect(faultOf({ [option]: value })).toEqual({
        type: "TypeError",
        message: `Option ${option} must be a function`,
      });
    }
  });
});

test("only users are required", async () => {
  await using gate = createGate({ users: { secret: SECRET } });
  expect(gate.basePath).toBe("/api/auth");
  const issued = await gate.issue({ user: "alice", expiresAtMs: Date.now() + 60_000 });
  expect(issued).toMatchObject({ ok: true, expiresInSeconds: 30 });
});

test("what createGate didn't make is no gate", () => {
  const { gate } = bareGate();
  for (const other of [undefined, null, {}, { ...gate }, "gate", () => {}]) {
    expect(() => partsOf(other as never)).toThrow(
      new TypeError("A gate is required, as createGate returns it"),
    );
  }
});

describe("what issue, redeem and revoke can't use is a TypeError or RangeError that names it", () => {
  const { gate, clock } = bareGate();
  const expiresAtMs = clock.nowMs() + 60_000;

  /** The error of a rejection. */
  async function rejection(work: () => Promise<unknown>): Promise<string> {
    try {
      await work();
      return "none";
    } catch (error) {
      return `${(error as Error).name}: ${(error as Error).message}`;
    }
  }

  test.each<[string, Record<string, unknown>, string]>([
    ["no user", { user: undefined }, "TypeError: Option user must "],
    ["an empty user", { user: "" }, "TypeError: Option user must "],
    ["a user that is a number", { user: 7 }, "TypeError: Option user must "],
    ["a user with a line feed", { user: "a\n" }, "TypeError: Option user must "],
    ["a user of 256 characters", { user: "a".repeat(256) }, "TypeError: Option user must "],
    ["an empty session", { session: "" }, "TypeError: Option session must "],
    [
      "a session of 256 characters",
      { session: "s".repeat(256) },
      "TypeError: Option session must ",
    ],
    ["a session that is null", { session: null }, "TypeError: Option session must "],
    ["no end", { expiresAtMs: undefined }, "TypeError: Option expiresAtMs must "],
    ["an end that is a Date", { expiresAtMs: new Date() }, "TypeError: Option expiresAtMs must "],
    ["an end that is NaN", { expiresAtMs: Number.NaN }, "TypeError: Option expiresAtMs must "],
    ["an endless end", { expiresAtMs: 1 / 0 }, "TypeError: Option expiresAtMs must "],
    ["a time of issue that is text", { issuedAtMs: "0" }, "TypeError: Option issuedAtMs must "],
    ["an empty purpose", { purpose: "" }, "TypeError: Option purpose must "],
    ["a purpose of 65 characters", { purpose: "p".repeat(65) }, "TypeError: Option purpose must "],
    ["a purpose that is a number", { purpose: 7 }, "TypeError: Option purpose must "],
    ["claims that are a function", { claims: () => {} }, "TypeError: Option claims must "],
  ])("issue with %s", async (_, changes, expected) => {
    const credential = { user: "alice", expiresAtMs, ...changes } as never;
    expect(await rejection(() => gate.issue(credential))).toStartWith(expected);
  });

  test("an end further away than ten years is cut to ten years", async () => {
    const issued = await gate.issue({ user: "alice", expiresAtMs: Number.MAX_VALUE });
    const redeemed = await gate.redeem(issued.ok ? issued.ticket : "");
    const tenYearsMs = 10 * 366 * 86_400_000;
    expect(redeemed).toMatchObject({ identity: { expiresAtMs: clock.nowMs() + tenYearsMs } });
  });

  test.each([0, -1, 999])("an end %d ms away is token_invalid, and no error", async (leftMs) => {
    const issued = await gate.issue({ user: "alice", expiresAtMs: clock.nowMs() + leftMs });
    expect(issued).toMatchObject({ ok: false, code: "token_invalid" });
  });

  test("redeem with a purpose that is none", async () => {
    for (const purpose of ["", 7, "p".repeat(65), null]) {
      const redeeming = () => gate.redeem("A".repeat(43), { purpose } as never);
      expect(await rejection(redeeming)).toStartWith("TypeError: Option purpose must ");
    }
  });

  test.each<unknown>([undefined, null, 7, {}, [[]], "", "x", "A".repeat(44)])(
    "redeem of %p is ticket_refused, and no error",
    async (ticket) => {
      expect(await gate.redeem(ticket as string)).toEqual({ ok: false, code: "ticket_refused" });
    },
  );

  test.each<[string, unknown, string]>([
    ["nothing", undefined, "TypeError: A user or a visitor is required"],
    ["a string", "alice", "TypeError: A user or a visitor is required"],
    ["no id", {}, "TypeError: Option user must be an id"],
    ["an empty user", { user: "" }, "TypeError: Option user must be an id"],
    ["a user with a line feed", { user: "a\n" }, "TypeError: Option user must be an id"],
    ["an empty session", { user: "a", session: "" }, "TypeError: Option session must be "],
    ["a session that is null", { user: "a", session: null }, "TypeError: Option session must be "],
    ["no visitor", { visitor: undefined }, "TypeError: Option visitor must be an id"],
    ["a visitor that is no id", { visitor: "alice" }, "TypeError: Option visitor must be an id"],
  ])("revoke of %s", async (_, target, expected) => {
    expect(await rejection(() => gate.revoke(target as never))).toStartWith(expected);
  });
});
