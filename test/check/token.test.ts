import { describe, expect, test } from "bun:test";
import type { Report } from "../../src/check/report.ts";
import { explainToken } from "../../src/check/token.ts";
import { type Environment, readConfig } from "../../src/config.ts";
import { createTokenVerifier } from "../../src/gate/token.ts";
import { fakeClock } from "../support/clock.ts";
import { forge, issuerKey, startKeyServer } from "../support/keys.ts";
import { SESSION_SECRET, TOKEN_SECRET } from "../support/people.ts";

const clock = fakeClock();
const NOW = clock.nowMs() / 1000;
const SECRETS = {
  JWT_SECRET: new TextDecoder().decode(TOKEN_SECRET),
  SESSION_SECRET: new TextDecoder().decode(SESSION_SECRET),
};
const HEADER = { alg: "HS256", typ: "JWT" };
const CLAIMS = { sub: "alice", exp: NOW + 3_600, iat: NOW - 60, jti: "one" };

async function explain(token: string, environment: Environment = {}): Promise<Report[]> {
  const read = readConfig({ ...SECRETS, ...environment });
  if (!read.ok) throw new Error(`Faults: ${JSON.stringify(read.faults)}`);
  const reports = await explainToken(token, { config: read.config, clock });
  const text = JSON.stringify(reports);
  // Neither the token nor a part of it that could be put together to one.
  for (const part of token.split(".")) if (part.length > 10) expect(text).not.toContain(part);
  return reports;
}

/** What is wrong, by claim. */
async function faults(token: string, environment?: Environment): Promise<string[]> {
  const reports = await explain(token, environment);
  return reports.filter(({ level }) => level === "fault").map(({ subject }) => subject);
}

/** Whether the server accepts it. */
async function isAccepted(token: string, environment: Environment = {}): Promise<boolean> {
  const read = readConfig({ ...SECRETS, ...environment });
  if (!read.ok || !read.config.keys) throw new Error("No keys");
  const { keys, issuer, audience, userClaim } = read.config;
  const options = { keys, issuer, audience, userClaim, clock, log: () => {} };
  return (await createTokenVerifier(options)(token)).ok;
}

describe("a token that the server accepts", () => {
  test.each<[string, Record<string, unknown>, Environment]>([
    ["with the least", { sub: "alice", exp: NOW + 60 }, {}],
    ["with everything", { ...CLAIMS, nbf: NOW, sid: "s" }, {}],
    [
      "with what the settings require",
      { ...CLAIMS, iss: "https://id.example", aud: ["web", "chat"], email: "a@b.example" },
      { JWT_ISSUER: "https://id.example", JWT_AUDIENCE: "mobile,chat", USER_CLAIM: "email" },
    ],
  ])("%s has no fault", async (_, claims, environment) => {
    const token = forge(HEADER, claims);
    expect(await isAccepted(token, environment)).toBe(true);
    expect(await faults(token, environment)).toEqual([]);
  });

  test("is told what it costs to have no iat and no name for the session", async () => {
    const reports = await explain(forge(HEADER, { sub: "alice", exp: NOW + 60 }));
    const warned = reports.filter(({ level }) => level === "warn");
    expect(warned).toMatchObject([
      { subject: "iat", found: "missing" },
      { subject: "sid", found: "missing, and jti" },
    ]);
  });

  test("shows who it is, and how long it lives", async () => {
    const reports = await explain(forge(HEADER, CLAIMS));
    const found = Object.fromEntries(reports.map(({ subject, found }) => [subject, found]));
    expect(found).toMatchObject({
      sub: "the user is alice",
      exp: "in 60 minutes",
      iat: "60 seconds ago",
      jti: "names the session: one",
      verdict: "the server accepts it",
    });
    expect(found).toMatchObject({ alg: "HS256", typ: "JWT", kid: "missing", nbf: "missing" });
  });

  test("shows its origin, and whether the settings require one", async () => {
    const claims = { ...CLAIMS, iss: "https://id.example", aud: "chat" };
    const origin = async (environment: Environment) =>
      (await explain(forge(HEADER, claims), environment))
        .filter(({ subject }) => subject === "iss" || subject === "aud")
        .map(({ found }) => found);
    expect(await origin({})).toEqual([
      "https://id.example, JWT_ISSUER isn't set",
      "chat, JWT_AUDIENCE isn't set",
    ]);
    const settings = { JWT_ISSUER: "https://id.example", JWT_AUDIENCE: "mobile,chat" };
    expect(await origin(settings)).toEqual(["https://id.example", "chat"]);
    expect(await origin({ JWT_ISSUER: "other", JWT_AUDIENCE: "mobile,web" })).toEqual([
      "https://id.example, JWT_ISSUER is other",
      "chat, JWT_AUDIENCE is mobile,web",
    ]);
  });
});

describe("a token that the server refuses has a fault at", () => {
  const settings = { JWT_ISSUER: "https://id.example", JWT_AUDIENCE: "chat" };
  const full = { ...CLAIMS, iss: "https://id.example", aud: "chat" };

  test.each<[string, string, Environment, string[]]>([
    ["alg", forge({ alg: "none" }, CLAIMS), {}, ["alg"]],
    ["alg", forge({ ...HEADER, alg: "RS256" }, CLAIMS), {}, ["alg"]],
    ["typ", forge({ ...HEADER, typ: "logout+jwt" }, CLAIMS), {}, ["typ"]],
    ["signature", forge(HEADER, CLAIMS, { secret: "another secret" }), {}, ["signature"]],
    ["padding", `${forge(HEADER, CLAIMS)}=`, {}, ["signature"]],
    ["iss", forge(HEADER, { ...full, iss: "https://id.example/" }), settings, ["iss"]],
    ["aud", forge(HEADER, { ...full, aud: ["web"] }), settings, ["aud"]],
    ["both", forge(HEADER, CLAIMS), settings, ["iss", "aud"]],
    ["exp", forge(HEADER, { ...CLAIMS, exp: NOW }), {}, ["exp"]],
    ["exp", forge(HEADER, { ...CLAIMS, exp: undefined }), {}, ["exp"]],
    ["exp", forge(HEADER, { ...CLAIMS, exp: `${NOW + 60}` }), {}, ["exp"]],
    ["exp", forge(HEADER, { ...CLAIMS, exp: (NOW + 60) * 1000 }), {}, ["exp"]],
    ["nbf", forge(HEADER, { ...CLAIMS, nbf: NOW + 60 }), {}, ["nbf"]],
    ["nbf", forge(HEADER, { ...CLAIMS, nbf: "now" }), {}, ["nbf"]],
    ["iat", forge(HEADER, { ...CLAIMS, iat: NOW + 60 }), {}, ["iat"]],
    ["iat", forge(HEADER, { ...CLAIMS, iat: -1 }), {}, ["iat"]],
    ["sub", forge(HEADER, { ...CLAIMS, sub: 7 }), {}, ["sub"]],
    ["sub", forge(HEADER, { ...CLAIMS, sub: "a\nb" }), {}, ["sub"]],
    ["email", forge(HEADER, CLAIMS), { USER_CLAIM: "email" }, ["email"]],
    ["no own claim", forge(HEADER, CLAIMS), { USER_CLAIM: "toString" }, ["toString"]],
    ...[false, "false"].map((verified): [string, string, Environment, string[]] => [
      "email_verified",
      forge(HEADER, { ...CLAIMS, email: "a@b.example", email_verified: verified }),
      { USER_CLAIM: "email" },
      ["email_verified"],
    ]),
    ["no JWT", "opaque", {}, []],
    ["four parts", `${forge(HEADER, CLAIMS)}.x`, {}, []],
    ["JSON that is none", forge("{", CLAIMS), {}, []],
    ["nothing", "", {}, []],
  ])("%s", async (_, token, environment, subjects) => {
    expect(await isAccepted(token, environment)).toBe(false);
    const last = subjects.length === 0 ? "token" : "verdict";
    expect(await faults(token, environment)).toEqual([...subjects, last]);
  });

  test("a time, which is shown in words", async () => {
    const claims = { ...CLAIMS, nbf: NOW + 7_200, iat: NOW + 119 };
    const found = async (exp: number) =>
      Object.fromEntries(
        (await explain(forge(HEADER, { ...claims, exp }))).map((one) => [one.subject, one.found]),
      );
    expect(await found(NOW - 120)).toMatchObject({
      ...{ exp: "2 minutes ago", nbf: "in 2 hours", iat: "in 119 seconds" },
    });
    expect(await found(NOW + 5_000 * 86_400)).toMatchObject({ exp: "in 5000 days" });
  });

  test("several claims at once", async () => {
    const token = forge(HEADER, { sub: "", exp: 1, iat: "x" });
    expect(await faults(token, settings)).toEqual(["iss", "aud", "exp", "iat", "sub", "verdict"]);
  });

  test("a key that the issuer doesn't have, or that can't be read", async () => {
    const [known, stranger] = await Promise.all([issuerKey("ES256", "a"), issuerKey("ES256", "b")]);
    await using server = startKeyServer(known);
    const environment = { JWT_SECRET: "", JWT_JWKS_URL: server.url.href };
    expect(await faults(await known.sign(CLAIMS), environment)).toEqual([]);
    const token = await stranger.sign(CLAIMS);
    expect(await faults(token, environment)).toEqual(["signature", "verdict"]);
    expect(await explain(token, environment)).toContainEqual(
      expect.objectContaining({ subject: "signature", found: "by an unknown key" }),
    );
    server.answer(() => new Response(null, { status: 500 }));
    expect(await explain(token, environment)).toContainEqual(
      expect.objectContaining({ subject: "signature", found: "not checked" }),
    );
  });
});

test("that JWT_SECRET_PREVIOUS has signed is accepted, and its issuer is warned of", async () => {
  const token = forge(HEADER, CLAIMS);
  const settings = { ...SECRETS, JWT_SECRET_PREVIOUS: SECRETS.JWT_SECRET };
  const changed = { ...settings, JWT_SECRET: "another secret for tokens, long enough" };
  expect(await faults(token, changed)).toEqual([]);
  const signatureOf = async (environment: Environment) =>
    (await explain(token, environment)).findLast(({ subject }) => subject === "signature");
  expect(await signatureOf(changed)).toMatchObject({
    ...{ level: "warn", found: "by JWT_SECRET_PREVIOUS" },
  });
  expect(await signatureOf(settings)).toMatchObject({ level: "ok" });
});

test("without a key, as in the demo, the signature can't be checked", async () => {
  const reports = await explain(forge(HEADER, CLAIMS), { JWT_SECRET: "", SESSION_SECRET: "" });
  expect(reports).toContainEqual(
    expect.objectContaining({ level: "fault", subject: "signature", found: "not checked" }),
  );
});

test("claims are shown without control characters, and cut", async () => {
  const sub = `\u001b[31m${"x".repeat(400)}`;
  const reports = await explain(forge(HEADER, { ...CLAIMS, sub, typ: {} }));
  const text = reports.map(({ found }) => found).join("");
  expect(text).not.toMatch(/\p{Cc}/u);
  expect(text.length).toBeLessThan(600);
  expect(text).toContain("\\u001b[31mx");
  const odd = await explain(forge(HEADER, { ...CLAIMS, sub: "\u200bx", nbf: "\u0085" }));
  expect(odd.find(({ subject }) => subject === "nbf")?.found).toBe('"?"');
});
