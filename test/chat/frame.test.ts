import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readFrame } from "../../src/chat/frame.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { MAX_CONTENT_LENGTH, MAX_NICKNAME_LENGTH, MAX_REF_LENGTH } from "../../src/wire/frames.ts";
import { begin, newVisitorId } from "../support/chat.ts";
import { fakeClock } from "../support/clock.ts";
import { visitorIdOf } from "../support/people.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Frame, TestSocket } from "../support/socket.ts";

/** Every code that an `ERROR` frame can have. */
const CODES = [
  ...[
    "unavailable",
    "blocked",
    "too_many_messages",
    "too_many_recipients",
    "not_found",
    "malformed",
    "not_allowed",
  ],
  ...["invalid_recipient", "invalid_content", "invalid_nickname", "invalid_ref"],
];
/** Part of what is sent; never part of what comes back in an `ERROR`, nor of the log. */
const CANARY = "c4nary";

const clock = fakeClock();
let server: TestServer;
let cookie: string;
let visitorId: string;
let visitor: TestSocket;
let user: TestSocket;
let probes = 0;

beforeAll(async () => {
  const history = sqliteChatHistory({ path: ":memory:", clock });
  server = startServer({
    ...{ history, clock, charactersPerMinute: 0, limits: { messagesPerSecond: 0 } },
  });
  cookie = await server.visitorCookie();
  visitorId = visitorIdOf(cookie);
  await begin(history, { user: "alice", visitor: visitorId });
});
beforeEach(async () => {
  [visitor, user] = await Promise.all([server.openVisitor(cookie), server.openUser("alice")]);
});
afterEach(async () => {
  await Promise.all([visitor, user].map((socket) => socket[Symbol.asyncDispose]()));
});
afterAll(async () => {
  expect(server.logLines.join("")).not.toContain(CANARY);
  await server[Symbol.asyncDispose]();
});

/** What a socket hears when it sends this, up to the answer to a good message sent right after. */
async function hear(socket: TestSocket, sent: unknown): Promise<Frame[]> {
  const ref = `probe ${++probes}`;
  const good =
    socket === user
      ? { type: "USER_TO_ANON", to: visitorId, content: ref, ref }
      : { type: "ANON_TO_USER", to: "alice", content: ref, ref };
  const heard = socket.frames.length;
  socket.send(sent);
  socket.send(good);
  const isProbe = (frame: Frame) => frame.ref === ref || /^probe \d+$/.test(frame.content);
  await socket.next((frame) => frame.type === "ACK" && frame.ref === ref);
  // Both sides have it before anything else is sent, so that nobody hears it among what comes next.
  for (const one of new Set([socket, user, ...(socket === user ? [visitor] : [])])) {
    await one.next((frame) => frame.content === ref);
  }
  return socket.frames.slice(heard).filter((frame) => !isProbe(frame));
}

/** The one answer to something bad: an `ERROR` with nothing in it that doesn't belong there. */
async function refusal(socket: TestSocket, sent: unknown): Promise<Frame> {
  const heard = await hear(socket, sent);
  expect(heard).toEqual(
    [{ type: "ERROR", code: expect.any(String), message: expect.any(String) }].map((frame) =>
      heard[0]?.ref === undefined ? frame : { ...frame, ref: heard[0].ref },
    ),
  );
  const error = heard[0] as Frame;
  expect(CODES).toContain(error.code);
  expect(JSON.stringify({ ...error, ref: "" })).not.toContain(CANARY);
  return error;
}

/** The message as everybody gets it; fails when it isn't taken. */
async function delivered(socket: TestSocket, sent: unknown): Promise<Frame> {
  const heard = await hear(socket, sent);
  expect(heard.map(({ type }) => type).toSorted()).toEqual(
    socket === user ? ["ACK", "USER_TO_ANON"] : ["ACK", "ANON_TO_USER"],
  );
  return heard.find(({ type }) => type !== "ACK") as Frame;
}

function toAlice(fields: Record<string, unknown> = {}): Record<string, unknown> {
  return { type: "ANON_TO_USER", to: "alice", content: CANARY, ...fields };
}

const VALID = JSON.stringify({ type: "ANON_TO_USER", to: "alice", content: "Hello" });

describe("anything but a frame is malformed, and the socket stays open", () => {
  const NOT_JSON: readonly (readonly [what: string, text: string])[] = [
    ["nothing at all", ""],
    ["blanks", "   "],
    ["a line break", "\n"],
    ["a word", CANARY],
    ["undefined", "undefined"],
    ["not a number", "NaN"],
    ["infinity", "-Infinity"],
    ["a comma", ","],
    ["one bracket", "["],
    ["one closing bracket", "]"],
    ["one brace", "{"],
    ["one quotation mark", '"'],
    ["a quotation mark and a backslash", '"\\'],
    ["a trailing comma", `${VALID.slice(0, -1)},}`],
    ["a leading comma", `{,${VALID.slice(1)}`],
    ["two commas", '{"type":"ANON_TO_USER",,"to":"alice"}'],
    ["a comma in place of a colon", '{"type","ANON_TO_USER"}'],
    ["a key alone", '{"type"}'],
    ["a key without a value", '{"type":}'],
    ["a value without a key", '{:"ANON_TO_USER"}'],
    ["a key that is a number", '{1:"a"}'],
    ["a key without quotes", '{type:"ANON_TO_USER"}'],
    ["single quotes", VALID.replaceAll('"', "'")],
    ["no closing brace", VALID.slice(0, -1)],
    ["one closing brace too many", `${VALID}}`],
    ["a bracket to close a brace", `${VALID.slice(0, -1)}]`],
    ["a byte order mark first", `\ufeff${VALID}`],
    ["a comment first", `/* hi */${VALID}`],
    ["a comment last", `${VALID}// hi`],
    ["a hash comment", `${VALID}# hi`],
    ["two frames in one", VALID + VALID],
    ["two frames on two lines", `${VALID}\n${VALID}`],
    ["a frame and a word", `${VALID} ${CANARY}`],
    ["a prefix against hijacking", `)]}',\n${VALID}`],
    ["a frame with a NUL behind it", `${VALID}\0`],
    ["a form feed as white space", `\f${VALID}`],
    ["a no-break space as white space", `\u00a0${VALID}`],
    ["a line break inside a string", VALID.replace("Hello", "He\nllo")],
    ["a tab inside a string", VALID.replace("Hello", "He\tllo")],
    ["a NUL inside a string", VALID.replace("Hello", "He\0llo")],
    ["an escape that doesn't exist", VALID.replace("Hello", "He\\xllo")],
    ["an escaped NUL in C's way", VALID.replace("Hello", "He\\0llo")],
    ["half an escape", VALID.replace("Hello", "He\\u00")],
    ["an escape with a capital U", VALID.replace("Hello", "\\U0041")],
    ["a Unicode escape in ECMAScript's way", VALID.replace("Hello", "\\u{41}")],
    ["a number with a leading zero", '{"type":012}'],
    ["a number with a plus sign", '{"type":+1}'],
    ["a hexadecimal number", '{"type":0x1}'],
    ["a number that ends in a point", '{"type":1.}'],
    ["a number that begins with a point", '{"type":.1}'],
    ["a number with half an exponent", '{"type":1e}'],
    ["a number with two signs", '{"type":--1}'],
    ["a big integer of ECMAScript's", '{"type":1n}'],
    ["full-width digits", '{"type":１}'],
    ["typographic quotes", "{“type”:1}"],
    ["True in Python's way", '{"type":True}'],
    ["half a null", "nul"],
    ["XML", `<frame type="${CANARY}"/>`],
    ["an HTTP request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"],
  ];
  const NOT_A_FRAME: readonly (readonly [what: string, text: string])[] = [
    ["null", "null"],
    ["true", "true"],
    ["a number", "1"],
    ["a number beyond all numbers", "1e999999"],
    ["minus zero", "-0"],
    ["a string", `"${CANARY}"`],
    ["a frame inside a string", JSON.stringify(VALID)],
    ["an empty list", "[]"],
    ["a frame in a list", `[${VALID}]`],
    ["an empty object", "{}"],
    ["an object with an empty key", '{"":0}'],
    ["no type", '{"to":"alice","content":"x"}'],
    ["a type that is null", '{"type":null}'],
    ["a type that is a list", '{"type":["ANON_TO_USER"],"to":"alice","content":"x"}'],
    ["a type that is an object", '{"type":{"toString":"ANON_TO_USER"}}'],
    ["a type in lower case", VALID.replace("ANON_TO_USER", "anon_to_user")],
    ["a type with a blank", VALID.replace("ANON_TO_USER", "ANON_TO_USER ")],
    ["an unknown type", VALID.replace("ANON_TO_USER", CANARY)],
    ["an acknowledgement", '{"type":"ACK","ref":"1","id":"1"}'],
    ["a read receipt", '{"type":"READ","chatId":"x","by":"alice","upTo":"1"}'],
    ["a deletion", '{"type":"DELETED","chatId":"x","user":"alice","upTo":"1"}'],
    ["a block", '{"type":"BLOCKED","chatId":"x","user":"alice","blocked":true}'],
    ["a heartbeat", '{"type":"HEARTBEAT"}'],
    ["an error", '{"type":"ERROR","code":"blocked"}'],
    ["a notice of expiry", '{"type":"EXPIRING","inSeconds":30}'],
    ["an operator's command", '{"type":"JOIN_CHAT","chatId":"x"}'],
    ["a type that every object inherits", '{"type":"constructor"}'],
    ["the type under another spelling of its key", VALID.replace('"type"', '"Type"')],
    ["the fields one level down", `{"data":${VALID}}`],
    ["the fields inherited", `{"__proto__":${VALID}}`],
    ["the fields in the constructor's prototype", `{"constructor":{"prototype":${VALID}}}`],
  ];
  test.each(NOT_JSON)("%s", async (_, text) => {
    expect(await refusal(visitor, text)).toEqual({
      ...{ type: "ERROR", code: "malformed", message: expect.any(String) },
    });
  });
  test.each(NOT_A_FRAME)("%s", async (_, text) => {
    const { code } = await refusal(user, text);
    expect(code).toBe("malformed");
  });
});

describe("nesting", () => {
  const nest = (open: string, close: string, depth: number) =>
    open.repeat(depth) + "0" + close.repeat(depth);
  const inFrame = (value: string) => `${VALID.slice(0, -1)},"extra":${value}}`;
  const BROKEN: readonly (readonly [what: string, text: string])[] = [
    ["16,000 brackets that are never closed", "[".repeat(16_000)],
    ["3,000 objects that are never closed", '{"a":'.repeat(3_000)],
    ["7,000 lists, all closed", nest("[", "]", 7_000)],
    ["lists behind brackets closed in advance", `${"]".repeat(100)}${"[".repeat(10_000)}`],
    ["7,000 lists in a field that would be ignored", inFrame(nest("[", "]", 7_000))],
    ["2,500 objects in a field that would be ignored", inFrame(nest('{"a":', "}", 2_500))],
    ["many lists side by side", inFrame(`[${"[],".repeat(2_000)}[]]`)],
    [
      "7,000 lists in a field, of which one isn't closed",
      inFrame(nest("[", "]", 7_000).slice(0, -1)),
    ],
  ];
  test.each(BROKEN)("malformed: %s", async (_, text) => {
    expect((await refusal(visitor, text)).code).toBe("malformed");
  });

  const FINE: readonly (readonly [what: string, text: string])[] = [
    ["200 lists in a field that is ignored", inFrame(nest("[", "]", 200))],
    ["lists behind a string with escaped quotes", inFrame(`["\\"\\\\",${nest("[", "]", 99)}]`)],
    ["brackets in the text", VALID.replace("Hello", "[".repeat(3_000))],
    ["brackets behind an escaped quote", VALID.replace("Hello", `\\"${"[{".repeat(1_000)}`)],
    ["brackets behind an escaped backslash", VALID.replace("Hello", `\\\\\\"${"[".repeat(99)}`)],
    ["brackets in a key", `${VALID.slice(0, -1)},"${"{".repeat(99)}":1}`],
  ];
  test.each(FINE)("accepted: %s", async (_, text) => {
    await delivered(visitor, text);
  });
});

describe("fields that aren't what they should be", () => {
  const WRONG_TYPES: readonly (readonly [what: string, value: unknown])[] = [
    ["null", null],
    ["true", true],
    ["a number", 1],
    ["an empty list", []],
    ["a list with a good value", ["alice"]],
    ["an object", {}],
    ["an object that looks like a string", { length: 5, toString: "alice" }],
  ];
  for (const [field, code] of [
    ["to", "invalid_recipient"],
    ["content", "invalid_content"],
    ["nickname", "invalid_nickname"],
    ["ref", "invalid_ref"],
  ] as const) {
    test.each(WRONG_TYPES)(`${field} is %s`, async (_, value) => {
      const answer = await refusal(visitor, toAlice({ [field]: value }));
      expect(answer.code).toBe(code);
      expect(answer).not.toHaveProperty("ref");
    });
  }

  const BAD_VALUES: readonly (readonly [
    what: string,
    fields: Record<string, unknown>,
    code: string,
  ])[] = [
    ["no recipient", { to: undefined }, "invalid_recipient"],
    ["an empty recipient", { to: "" }, "invalid_recipient"],
    ["a recipient of 256 characters", { to: "a".repeat(256) }, "invalid_recipient"],
    ["a recipient with a line break", { to: `a\n${CANARY}` }, "invalid_recipient"],
    ["a recipient with half a character", { to: "a\ud800" }, "invalid_recipient"],
    ["no text", { content: undefined }, "invalid_content"],
    ["an empty text", { content: "" }, "invalid_content"],
    ["only blanks", { content: "     " }, "invalid_content"],
    ["only line breaks", { content: "\n\n\n" }, "invalid_content"],
    ["only blanks of other kinds", { content: "\u00a0\u3000\u2003\ufeff" }, "invalid_content"],
    ["a text one too long", { content: "x".repeat(4_001) }, "invalid_content"],
    [
      "a text one too long with its blanks",
      { content: `x${" ".repeat(4_000)}` },
      "invalid_content",
    ],
    ["2,001 characters of two units", { content: "😀".repeat(2_001) }, "invalid_content"],
    ["a nickname of 41 characters", { nickname: "n".repeat(41) }, "invalid_nickname"],
    ["an empty nickname", { nickname: "" }, "invalid_nickname"],
    ["a nickname of two lines", { nickname: `a\n${CANARY}` }, "invalid_nickname"],
    ["an escape sequence in the nickname", { nickname: "\u001b[31mred" }, "invalid_nickname"],
    ["half a character in the nickname", { nickname: "\udc00" }, "invalid_nickname"],
    ["an empty ref", { ref: "" }, "invalid_ref"],
    ["a ref of 101 characters", { ref: CANARY.padEnd(101, "r") }, "invalid_ref"],
    ["a ref with a line break", { ref: `r\n${CANARY}` }, "invalid_ref"],
    ["half a character in the ref", { ref: `${CANARY}\ud83d` }, "invalid_ref"],
  ];
  test.each(BAD_VALUES)("%s", async (_, fields, code) => {
    expect((await refusal(visitor, toAlice(fields))).code).toBe(code);
  });

  const CONTROLS = [
    "\0",
    "\u0001",
    "\b",
    "\t",
    "\v",
    "\f",
    "\r",
    "\u001b",
    "\u007f",
    "\u0085",
    "\u009b",
  ];
  test.each(CONTROLS.map((char) => [char.charCodeAt(0).toString(16), char] as const))(
    "a control character in the text: %s",
    async (_, char) => {
      expect((await refusal(visitor, toAlice({ content: `a${char}b` }))).code).toBe(
        "invalid_content",
      );
    },
  );

  const HALVES = ["\\ud800", "\\udfff", "a\\ud83db", "\\ude00\\ud83d", "\\ud83d\\ud83d\\ude00"];
  test.each(HALVES)("half a character in the text: %s", async (half) => {
    expect((await refusal(visitor, VALID.replace("Hello", half))).code).toBe("invalid_content");
  });

  test("an error names the message by its ref, where that is one", async () => {
    const ref = "my message";
    expect(await refusal(visitor, toAlice({ ref, content: "" }))).toMatchObject({ ref });
    expect(await refusal(visitor, toAlice({ ref, to: "" }))).toMatchObject({ ref });
    expect(await refusal(visitor, toAlice({ ref, nickname: 1 }))).toMatchObject({ ref });
    expect(await refusal(visitor, { ref, type: "?" })).toMatchObject({ ref });
    expect(await refusal(user, toAlice({ ref }))).toMatchObject({ ref });
    const mark = { type: "MARK_AS_READ", ref };
    expect(await refusal(user, { ...mark, chatId: newVisitorId() })).toMatchObject({ ref });
    expect(await refusal(user, { ...mark, chatId: "x" })).toMatchObject({ ref });
  });
});

describe("accepted unchanged", () => {
  const TEXTS: readonly (readonly [what: string, content: string])[] = [
    ["one character", "x"],
    ["4,000 characters", "x".repeat(MAX_CONTENT_LENGTH)],
    ["4,000 characters of three bytes", "漢".repeat(MAX_CONTENT_LENGTH)],
    ["2,000 characters of two units", "😀".repeat(MAX_CONTENT_LENGTH / 2)],
    ["line breaks", "a\nb\n"],
    ["a change of direction", "a\u202eb\u202c"],
    ["characters without width", "a\u200b\u200d\u2060b"],
    ["one letter under 300 accents", `z${"\u0301".repeat(300)}`],
    ["an accent in two characters, not made one", "e\u0301"],
    ["a separator of lines that JSON allows", "a\u2028b\u2029c"],
    ["a family of four", "👨‍👩‍👧‍👦"],
    ["the character that stands for broken ones", "\ufffd"],
    ["no characters at all, by Unicode", "\uffff\ufdd0"],
    ["a formula of a spreadsheet", "=cmd|' /C calc'!A0"],
    ["a script", "<script>alert(1)</script>"],
    ["a frame", VALID],
    ["a path", "../../etc/passwd"],
    ["a template", "${7*7}{{7*7}}"],
  ];
  test.each(TEXTS)("%s", async (_, content) => {
    const heard = user.next((frame) => frame.content === content);
    expect((await delivered(visitor, toAlice({ content }))).content).toBe(content);
    expect((await heard).content).toBe(content);
  });

  test("a text spelled in escapes", async () => {
    const { content } = await delivered(
      visitor,
      VALID.replace("Hello", "\\u0048\\ud83d\\ude00\\n\\/\\u005c"),
    );
    expect(content).toBe("H😀\n/\\");
  });

  test("nicknames and refs of the greatest length", async () => {
    const nickname = "名".repeat(MAX_NICKNAME_LENGTH);
    const ref = "r".repeat(MAX_REF_LENGTH);
    expect((await delivered(visitor, toAlice({ nickname, ref }))).nickname).toBe(nickname);
  });

  test("user ids of 255 characters, and with special characters", async () => {
    for (const to of ["a".repeat(255), "*", "a:b", "__proto__", "../x", "é", "e\u0301"]) {
      await using reader = await server.openUser(to);
      const heard = reader.next();
      expect((await delivered(visitor, toAlice({ to }))).to).toBe(to);
      expect(await heard).toMatchObject({ to, content: CANARY });
      expect(reader.frames).toHaveLength(1);
    }
  });

  test("unknown fields, and keys that reach for prototypes", async () => {
    const text = JSON.stringify(toAlice({ extra: { a: [1] }, ttl: -1 })).slice(0, -1);
    const polluting = `${text},"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}`;
    const frame = await delivered(visitor, polluting);
    expect(Object.keys(frame).toSorted()).toEqual([
      "chatId",
      "content",
      "from",
      "id",
      "timestamp",
      "to",
      "type",
    ]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  test("without fields that a polluted prototype adds", () => {
    const identity = { kind: "visitor", id: visitorId, issuedAtMs: 0, expiresAtMs: 1 } as const;
    const prototype = Object.prototype as { nickname?: string };
    prototype.nickname = "polluted";
    try {
      expect(Object.keys(readFrame(VALID, identity))).toEqual(["type", "chat", "content"]);
    } finally {
      delete prototype.nickname;
    }
  });

  test("of duplicate keys the last one", async () => {
    const text = `{"type":"USER_TO_ANON","type":"ANON_TO_USER","to":"mallory","to":"alice","content":1,"content":"last"}`;
    expect(await delivered(visitor, text)).toMatchObject({ to: "alice", content: "last" });
    const reversed = `{"type":"ANON_TO_USER","to":"alice","content":"x","type":"USER_TO_ANON"}`;
    expect((await refusal(visitor, reversed)).code).toBe("not_allowed");
  });
});

describe("sender and recipient", () => {
  test("from, id, timestamp and chatId are set by the server, whatever the sender claims", async () => {
    const forged = {
      ...{ from: "mallory", sender: "mallory", userId: "mallory", role: "admin", id: "999999" },
      ...{ timestamp: "1999-01-01T00:00:00.000Z", ts: 0, chatId: newVisitorId() },
    };
    const heard = user.next((frame) => frame.content === "by whom?");
    await delivered(visitor, toAlice({ ...forged, content: "by whom?" }));
    const got = await heard;
    expect(got).toEqual({
      ...{ type: "ANON_TO_USER", from: visitorId, to: "alice", content: "by whom?" },
      ...{ id: expect.stringMatching(/^\d+$/), timestamp: "2026-01-01T00:00:00.000Z" },
      chatId: visitorId,
    });
    expect(got.id).not.toBe("999999");
    const answer = { type: "USER_TO_ANON", to: visitorId, content: "by me" };
    expect(await delivered(user, { ...answer, ...forged })).toMatchObject({
      ...{ from: "alice", to: visitorId, chatId: visitorId },
    });
  });

  test("a visitor doesn't write as a user, nor a user as a visitor", async () => {
    const other = newVisitorId();
    for (const to of [visitorId, other, "alice"]) {
      const asUser = { type: "USER_TO_ANON", to, content: CANARY };
      expect((await refusal(visitor, asUser)).code).toBe("not_allowed");
      const asVisitor = { type: "ANON_TO_USER", to, content: CANARY };
      expect((await refusal(user, asVisitor)).code).toBe("not_allowed");
    }
  });

  test("a user can't write first: not_found, for a visitor who exists as for one who doesn't", async () => {
    await using bob = await server.openUser("bobby");
    const errors = [visitorId, newVisitorId()].map(async (to) => {
      bob.send({ type: "USER_TO_ANON", to, content: CANARY, ref: to });
      const { ref, ...error } = await bob.next((frame) => frame.ref === to);
      return error;
    });
    const [known, unknown] = await Promise.all(errors);
    expect(known).toEqual({ type: "ERROR", code: "not_found", message: expect.any(String) });
    expect(known).toEqual(unknown as Frame);
    expect(visitor.frames).toEqual([]);
  });

  const NO_VISITORS: readonly (readonly [what: string, to: unknown])[] = [
    ["another user", "bob"],
    ["oneself", "alice"],
    ["everybody", "*"],
    ["nobody", ""],
    ["a path", "../alice"],
    ["a property of every object", "__proto__"],
    ["an id one character short", "A".repeat(21)],
    ["an id one character long", "A".repeat(23)],
    ["an id that is not canonical base64url", "B".repeat(22)],
    ["an id with a sign of the other base64", `${"A".repeat(20)}/A`],
    ["an id with a line break behind it", `${"A".repeat(22)}\n`],
    ["a topic", `visitor:${"A".repeat(22)}`],
    ["10 KB", "A".repeat(10_000)],
  ];
  test.each(NO_VISITORS)("a user doesn't write to %s", async (_, to) => {
    const frame = { type: "USER_TO_ANON", to, content: CANARY };
    expect((await refusal(user, frame)).code).toBe("invalid_recipient");
  });

  test("every tab of both sides receives every message once and in one order, and no other socket does", async () => {
    await using otherTab = await server.openVisitor(cookie);
    await using secondTab = await server.openUser("alice");
    await using stranger = await server.openVisitor();
    await using bob = await server.openUser("bob");
    for (let n = 0; n < 20; n++) {
      visitor.send(toAlice({ content: `v${n}` }));
      user.send({ type: "USER_TO_ANON", to: visitorId, content: `u${n}` });
    }
    const sockets = [visitor, otherTab, user, secondTab];
    for (const socket of sockets) {
      for (const last of ["v19", "u19"]) await socket.next(({ content }) => content === last);
    }
    const orders = sockets.map(({ frames }) =>
      frames.flatMap(({ id, content }) => (content === undefined ? [] : [`${id} ${content}`])),
    );
    expect(orders[0]).toHaveLength(40);
    for (const order of orders) expect(order).toEqual(orders[0] as string[]);
    await hear(stranger, toAlice({ to: "carol" }));
    expect(stranger.frames.every(({ content }) => !/^[uv]\d+$/.test(content ?? ""))).toBe(true);
    expect(bob.frames).toEqual([]);
  });

  test("a message sent again under its ref is acknowledged again and delivered once", async () => {
    const frame = toAlice({ ref: "again", content: "once" });
    const [first] = (await hear(visitor, frame)).filter(({ type }) => type === "ACK");
    const heard = await hear(visitor, { ...frame, content: "other" });
    expect(heard).toEqual([first as Frame]);
    await using otherTab = await server.openVisitor(cookie);
    expect(await hear(otherTab, frame)).toEqual([first as Frame]);
    const texts = user.frames.map(({ content }) => content);
    expect(texts.filter((content) => content === "once" || content === "other")).toEqual(["once"]);
  });
});

describe("marking a chat as read", () => {
  const gone = { type: "ERROR", code: "not_found", message: expect.any(String) };
  const NO_CHATS: readonly (readonly [what: string, chatId: unknown])[] = [
    ["a chat that doesn't exist", newVisitorId()],
    ["no chat", undefined],
    ["null", null],
    ["a number", 1],
    ["a list", [newVisitorId()]],
    ["an object", { toString: "x" }],
    ["an empty id", ""],
    ["a path", "../"],
    ["a pattern", "*"],
    ["a property of every object", "__proto__"],
    ["10 KB", "A".repeat(10_000)],
  ];
  test.each(NO_CHATS)("is not_found: %s", async (_, chatId) => {
    const mark = { type: "MARK_AS_READ", chatId };
    expect([await refusal(user, mark), await refusal(visitor, mark)]).toEqual([gone, gone]);
  });

  test("is not_found for the chat of somebody else, which stays unread", async () => {
    const strangersCookie = await server.visitorCookie();
    const chatId = visitorIdOf(strangersCookie);
    await using stranger = await server.openVisitor(strangersCookie);
    await using bob = await server.openUser("bob");
    stranger.send(toAlice({ to: "bob", content: "to bob" }));
    await bob.next();
    const mark = { type: "MARK_AS_READ", chatId };
    expect(await refusal(user, mark)).toEqual(gone);
    expect(await refusal(visitor, mark)).toEqual(gone);
    expect(await refusal(visitor, { ...mark, to: "bob" })).toEqual(gone);
    expect(stranger.frames.some(({ type }) => type === "READ")).toBe(false);
    const { body } = await server.ask("/api/chats", { user: "bob" });
    expect(body.chats[0]).toMatchObject({ peer: chatId, unread: 1 });
  });

  test("is not_found for a user without a chat with the visitor", async () => {
    const mark = { type: "MARK_AS_READ", chatId: visitorId };
    for (const to of ["nobody", "", 1, null, "a".repeat(256)]) {
      expect(await refusal(visitor, { ...mark, to })).toEqual(gone);
    }
  });

  test("sends READ once to every tab of both sides", async () => {
    const { id } = await delivered(visitor, toAlice({ content: "read me" }));
    await using secondTab = await server.openUser("alice");
    const mark = { type: "MARK_AS_READ", chatId: visitorId };
    user.send(mark);
    user.send(mark);
    for (const socket of [user, secondTab, visitor]) {
      const read = await socket.next(({ type }) => type === "READ");
      expect(read.upTo === id || Number(read.upTo) > Number(id)).toBe(true);
      expect(read).toEqual({
        type: "READ",
        chatId: visitorId,
        user: "alice",
        by: "alice",
        upTo: read.upTo,
      });
    }
    await hear(user, toAlice());
    expect(user.frames.filter(({ type }) => type === "READ")).toHaveLength(1);
  });

  test("from a visitor means one chat with `to`, and all of them without", async () => {
    await delivered(user, { type: "USER_TO_ANON", to: visitorId, content: "from alice" });
    await using bob = await server.openUser("bob");
    visitor.send(toAlice({ to: "bob", content: "to bob" }));
    await bob.next(({ content }) => content === "to bob");
    bob.send({ type: "USER_TO_ANON", to: visitorId, content: "from bob" });
    await visitor.next(({ content }) => content === "from bob");
    visitor.send({ type: "MARK_AS_READ", chatId: visitorId, to: "bob" });
    expect(await bob.next(({ type }) => type === "READ")).toMatchObject({ by: visitorId });
    expect(user.frames.some(({ type }) => type === "READ")).toBe(false);
    visitor.send({ type: "MARK_AS_READ", chatId: visitorId });
    expect(await user.next(({ type }) => type === "READ")).toMatchObject({ by: visitorId });
  });
});

describe("ten bad frames in a row", () => {
  test("close the socket with 4501, and what follows has no effect", async () => {
    await using socket = await server.openVisitor();
    for (let n = 0; n < 10; n++) socket.send(n % 2 ? "{" : toAlice({ content: "" }));
    socket.send(toAlice({ content: "too late" }));
    expect(await socket.closed).toMatchObject({ code: 4501 });
    expect(socket.frames.map(({ type }) => type)).toEqual(Array(10).fill("ERROR"));
    await hear(visitor, toAlice());
    expect(user.frames.some(({ content }) => content === "too late")).toBe(false);
  });

  test("are counted per socket, and from zero again after a good one", async () => {
    await using socket = await server.openVisitor(cookie);
    for (let round = 0; round < 5; round++) {
      for (let n = 0; n < 9; n++) socket.send("{");
      await hear(socket, toAlice());
      for (let n = 0; n < 5; n++) visitor.send("{");
      await hear(visitor, toAlice());
    }
    expect(socket.socket.readyState).toBe(WebSocket.OPEN);
  });
});

test("a socket receives nothing that was delivered before it opened", async () => {
  await delivered(visitor, toAlice({ content: "before" }));
  await using late = await server.openUser("alice");
  await hear(visitor, toAlice({ content: "after" }));
  await late.next(({ content }) => content === "after");
  expect(late.frames.some(({ content }) => content === "before")).toBe(false);
});
