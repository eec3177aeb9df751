import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createGate } from "../../src/gate/gate.ts";
import type { Identity } from "../../src/gate/identity.ts";
import { createUserSessions } from "../../src/gate/user-session.ts";
import { createVisitorSessions } from "../../src/gate/visitor.ts";
import { fakeClock } from "../support/clock.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";

const clock = fakeClock();
const NOW_MS = clock.nowMs();
const ALICE: Identity = {
  kind: "user",
  id: "alice",
  session: "laptop",
  issuedAtMs: NOW_MS - 1_000,
  toleranceMs: 5_000,
  expiresAtMs: NOW_MS + 3_600_000,
};
const sessions = createUserSessions({ secret: SESSION_SECRET, clock });

/** `name=value` of the cookie for an identity. */
async function cookieOf(identity = ALICE, { secret = SESSION_SECRET } = {}): Promise<string> {
  const issued = await createUserSessions({ secret, clock }).issue(identity, { secure: false });
  return issued?.split(";")[0] ?? "";
}

function read(cookie: string, { secure = false } = {}): Promise<Identity | undefined> {
  return sessions.read(cookie, { secure });
}

describe("the inbox's cookie", () => {
  test("is the host's alone, out of reach of scripts and of other sites, and lives as long as the JWT", async () => {
    expect(await sessions.issue(ALICE, { secure: true })).toMatch(
      /^__Host-inboxSession=v1\.[\w-]+\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=3600; Secure$/,
    );
    expect(await sessions.issue(ALICE, { secure: false })).toMatch(
      /^inboxSession=v1\.[\w-]+\.[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict; Max-Age=3600$/,
    );
    expect(sessions.clear({ secure: true })).toBe(
      "__Host-inboxSession=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0; Secure",
    );
  });

  test("isn't issued for less than a second", async () => {
    const ending = { ...ALICE, expiresAtMs: NOW_MS + 999 };
    expect(await sessions.issue(ending, { secure: true })).toBeUndefined();
  });

  test("gives back whose it is, with every name of a user and a session, in less than 4,096 bytes", async () => {
    const name = fc
      .string({ unit: "binary", minLength: 1, maxLength: 255 })
      .filter((text) => text.length <= 255 && !/\p{Cc}|\p{Cs}/u.test(text));
    await fc.assert(
      fc.asyncProperty(name, fc.option(name, { nil: undefined }), async (id, session) => {
        const { session: _, ...rest } = { ...ALICE, id };
        const identity = session === undefined ? rest : { ...rest, session };
        const cookie = await cookieOf(identity);
        expect(cookie.length).toBeLessThan(4_096);
        expect(await read(cookie)).toEqual(identity);
      }),
    );
    const longest = { ...ALICE, id: "漢".repeat(255), session: "漢".repeat(255) };
    expect((await cookieOf(longest)).length).toBeLessThan(4_000);
  });

  test("ends to the millisecond", async () => {
    const later = fakeClock();
    const cookie = await cookieOf();
    const { read: readLater } = createUserSessions({ secret: SESSION_SECRET, clock: later });
    await later.advance(3_599_999);
    expect(await readLater(cookie, { secure: false })).toEqual(ALICE);
    await later.advance(1);
    expect(await readLater(cookie, { secure: false })).toBeUndefined();
  });

  test("is nobody's when any character of it is another one", async () => {
    const cookie = await cookieOf();
    const start = cookie.indexOf("=") + 1;
    for (let at = start; at < cookie.length; at++) {
      const other = cookie[at] === "A" ? "B" : "A";
      expect(await read(cookie.slice(0, at) + other + cookie.slice(at + 1))).toBeUndefined();
    }
  });

  const VISITOR = {
    secret: SESSION_SECRET,
    clock,
    randomBytes: (length: number) => new Uint8Array(length),
  };
  test.each<[string, () => Promise<string> | string]>([
    ["missing", () => ""],
    ["empty", () => "inboxSession="],
    ["there twice", async () => `${await cookieOf()}; ${await cookieOf()}`],
    ["under its name for https", async () => `__Host-${await cookieOf()}`],
    ["under another name", async () => (await cookieOf()).replace("inbox", "Inbox")],
    ["cut off", async () => (await cookieOf()).slice(0, -1)],
    ["longer", async () => `${await cookieOf()}.A`],
    ["of another version", async () => (await cookieOf()).replace("=v1", "=v2")],
    ["signed with another secret", () => cookieOf(ALICE, { secret: TOKEN_SECRET })],
    [
      "a visitor's",
      async () =>
        (await createVisitorSessions(VISITOR).issue({ secure: false })).replace(
          "anonSessionId",
          "inboxSession",
        ),
    ],
    ["for no user", () => cookieOf({ ...ALICE, id: "" })],
    ["without an end", () => cookieOf({ ...ALICE, expiresAtMs: NOW_MS + 1e300 })],
  ])("is nobody's when it is %s", async (_, cookie) => {
    expect(await read(await cookie())).toBeUndefined();
  });
});

describe("visitors' cookies on the site and in frames", () => {
  const options = {
    secret: SESSION_SECRET,
    clock,
    randomBytes: (length: number) => new Uint8Array(length),
  };
  const site = createVisitorSessions(options);
  const embed = createVisitorSessions({ ...options, kind: "embed" });

  test("in a frame on another site it is sent there, and kept for that site alone", async () => {
    expect(await embed.issue({ secure: true })).toMatch(
      /^__Host-embedSessionId=v1\.[\w-]{22}\.\d+\.[\w-]{43}; Path=\/; Max-Age=2592000; HttpOnly; SameSite=None; Secure; Partitioned$/,
    );
    expect(await embed.issue({ secure: false })).toMatch(/; HttpOnly; SameSite=Lax$/);
  });

  test("neither is good for the other, whatever its name", async () => {
    const [ours, theirs] = [
      await site.issue({ secure: false }),
      await embed.issue({ secure: false }),
    ].map((cookie) => (cookie ?? "").split(";")[0] as string);
    expect(await site.read(ours as string, { secure: false })).toMatchObject({ kind: "visitor" });
    expect(await embed.read(theirs as string, { secure: false })).toMatchObject({
      kind: "visitor",
    });
    const [asEmbed, asSite] = [
      ours?.replace("anonSessionId", "embedSessionId"),
      theirs?.replace("embedSessionId", "anonSessionId"),
    ] as [string, string];
    expect(await embed.read(asEmbed, { secure: false })).toBeUndefined();
    expect(await site.read(asSite, { secure: false })).toBeUndefined();
  });
});

test("a gate whose users have a proof of their own has no inbox's cookie", () => {
  expect(() =>
    createGate({ users: () => undefined, userSessions: { secret: SESSION_SECRET } }),
  ).toThrow("Option userSessions needs users with a secret, a jwksUrl or publicKeys");
  expect(() =>
    createGate({ users: { secret: TOKEN_SECRET }, userSessions: { secret: "short" } }),
  ).toThrow("Option userSessions.secret must be at least 32 bytes");
});
