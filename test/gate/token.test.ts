import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { compactVerify, importJWK } from "jose";
import {
  createTokenVerifier,
  MAX_TOKEN_LENGTH,
  readBearer,
  signToken,
  type TokenKeys,
} from "../../src/gate/token.ts";
import type { Identity } from "../../src/gate/identity.ts";
import { isUserId } from "../../src/wire/ids.ts";
import { fakeClock } from "../support/clock.ts";
import { forge, issuerKey, segment, startKeyServer } from "../support/keys.ts";
import { sendRaw } from "../support/raw.ts";
import { SESSION_SECRET, startServer, TOKEN_SECRET } from "../support/server.ts";
import { anyText } from "../support/text.ts";

/** Where the fake clock stands, in seconds: the present of every token here. */
const NOW = fakeClock().nowMs() / 1000;
const HEADER = { alg: "HS256", typ: "JWT" };
const CLAIMS = { sub: "alice", exp: NOW + 3600 };
const GOOD = forge(HEADER, CLAIMS);
const [goodHeader, goodPayload, goodSignature] = GOOD.split(".") as [string, string, string];

type VerifierOptions = Partial<Parameters<typeof createTokenVerifier>[0]>;

/** What a verifier with the test secret, or other keys, makes of a token: the user's id or the refusal's code. */
async function verify(token: string, options: VerifierOptions = {}): Promise<string> {
  const verifier = createTokenVerifier({
    keys: { secret: TOKEN_SECRET },
    clock: fakeClock(),
    log: () => {},
    ...options,
  });
  const verified = await verifier(token);
  return verified.ok ? `user ${verified.identity.id}` : verified.code;
}

/** Fails unless a server refuses the token as it refuses every token that does not verify. */
async function expectTokenInvalid(token: string, options: { keys?: TokenKeys } = {}) {
  await using server = startServer(options);
  const answer = await server.mint(token);
  expect(answer.status).toBe(401);
  expect(answer.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(await answer.json()).toEqual({
    type: "about:blank",
    status: 401,
    code: "token_invalid",
    detail: "The bearer token is not valid",
  });
  const log = server.logLines.join("");
  expect(log).toMatch(/refused"/);
  expect(log).not.toContain("ticket_issued");
  for (const part of token.split(".")) if (part.length > 8) expect(log).not.toContain(part);
}

test("a header that takes long to parse is invalid, whatever else it says", async () => {
  const payload = { sub: "alice", exp: fakeClock().nowMs() / 1000 + 3_600 };
  const withExtra = (extra: string) =>
    forge(`{"alg":"HS256","typ":"JWT","extra":${extra}}`, payload);
  expect(await verify(withExtra(`"${"x".repeat(2_000)}"`))).toBe("user alice");
  expect(await verify(withExtra("[".repeat(1_000) + "]".repeat(1_000)))).toBe("token_invalid");
});

test("a valid token gets a ticket of 32 bytes that lives 30 s, and nothing else", async () => {
  await using server = startServer();
  const answer = await server.mint(GOOD);
  expect(answer.status).toBe(200);
  const body = (await answer.json()) as Record<string, unknown>;
  expect(body).toEqual({ ticket: expect.stringMatching(/^[\w-]{43}$/), expiresIn: 30 });
  expect(server.logLines.join("")).not.toContain(body.ticket as string);
});

describe("refused through POST /api/auth/ws-ticket", () => {
  test.each([
    ...["none", "None", "NONE", "nOnE"].flatMap((alg): [string, string][] => [
      [`alg ${alg} without a signature`, `${segment({ alg })}.${goodPayload}.`],
      [`alg ${alg} with a signature`, forge({ alg }, CLAIMS)],
      [`alg ${alg} with the signature of another token`, `${segment({ alg })}.${goodPayload}.AAAA`],
    ]),
    ["no alg", forge({ typ: "JWT" }, CLAIMS)],
    ...[1, true, null, [], ["HS256"], {}, "", "hs256", "HS256 ", "Hs256", "HS1", "HS2560"].map(
      (alg): [string, string] => [`alg ${JSON.stringify(alg)}`, forge({ alg, typ: "JWT" }, CLAIMS)],
    ),
    ...["RS256", "PS256", "ES256", "EdDSA", "Ed25519", "dir", "A128KW", "PBES2-HS256+A128KW"].map(
      (alg): [string, string] => [`an HMAC labelled ${alg}`, forge({ alg }, CLAIMS)],
    ),
    ["an HS256 signature labelled HS384", forge({ alg: "HS384" }, CLAIMS)],
    ["an HS256 signature labelled HS512", forge({ alg: "HS512" }, CLAIMS)],
    ["an HS512 signature labelled HS256", forge(HEADER, CLAIMS, { hash: "sha512" })],
    ["a signature cut short", GOOD.slice(0, -22)],
    ["a signature of nothing but zeros", `${goodHeader}.${goodPayload}.${"A".repeat(43)}`],
    [
      "the signature of another token",
      `${goodHeader}.${segment({ ...CLAIMS, sub: "bob" })}.${goodSignature}`,
    ],
    [
      "another header under the same signature",
      `${segment({ alg: "HS256" })}.${goodPayload}.${goodSignature}`,
    ],
    ["signed with the cookies' secret", forge(HEADER, CLAIMS, { secret: SESSION_SECRET })],
    [
      "signed with the secret in base64url",
      forge(HEADER, CLAIMS, { secret: segment(Buffer.from(TOKEN_SECRET).toString()) }),
    ],
    [
      "signed with the secret's first half",
      forge(HEADER, CLAIMS, { secret: TOKEN_SECRET.slice(0, 16) }),
    ],
    ...[
      "",
      "secret",
      "password",
      "changeme",
      "your-256-bit-secret",
      "jwt",
      "key",
      "test",
      "null",
    ].map((secret): [string, string] => [
      `signed with "${secret}"`,
      forge(HEADER, CLAIMS, { secret }),
    ]),
    ["no dot", "abcdefgh"],
    ["one dot", `${goodHeader}.${goodPayload}`],
    ["no signature", `${goodHeader}.${goodPayload}.`],
    ["no payload", `${goodHeader}..${goodSignature}`],
    ["no header", `.${goodPayload}.${goodSignature}`],
    ["nothing but dots", ".."],
    ["four parts", `${GOOD}.${goodSignature}`],
    ["five parts, as an encrypted token has", `${GOOD}.AAAA.AAAA`],
    ["seven parts", `${GOOD}.A.A.A.A`],
    ["a header that is no JSON", `${segment("{")}.${goodPayload}.${goodSignature}`],
    ["a header that is no object", forge("null", CLAIMS)],
    ["a header that is a list", forge([HEADER], CLAIMS)],
    ["padding behind the signature", `${GOOD}=`],
    [
      "a slash for an underscore in the signature",
      `${goodHeader}.${goodPayload}./${goodSignature.slice(1)}`,
    ],
    ["longer than the cap", forge(HEADER, { ...CLAIMS, filler: "x".repeat(MAX_TOKEN_LENGTH) })],
  ])("%s", async (_, token) => {
    await expectTokenInvalid(token);
  });
});

describe("bad Authorization grammar is malformed, before anything is verified", () => {
  test.each([
    ["a space inside the token", `Bearer ${goodHeader}. ${goodPayload}.${goodSignature}`],
    ["a tab inside the token", `Bearer ${goodHeader}.\t${goodPayload}.${goodSignature}`],
    ["a percent-encoded dot", `Bearer ${GOOD.replace(".", "%2E")}`],
    ["two tokens", `Bearer ${GOOD}, Bearer ${GOOD}`],
    [
      "flattened JSON serialisation",
      `Bearer {"protected":"${goodHeader}","payload":"${goodPayload}"}`,
    ],
    ["general JSON serialisation", `Bearer {"payload":"${goodPayload}","signatures":[]}`],
    ["a quoted token", `Bearer "${GOOD}"`],
    ["padding in the middle", `Bearer ${goodHeader}=.${goodPayload}.${goodSignature}`],
    ["8-bit characters", `Bearer ${GOOD}\xe9`],
    ["no token behind the scheme", "Bearer"],
    ["a parameter instead of a token", `Bearer token=${GOOD}`],
  ])("%s", async (_, authorization) => {
    await using server = startServer();
    const answer = await sendRaw(
      server.port,
      `POST /api/auth/ws-ticket HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: ${authorization}\r\nContent-Length: 0\r\n\r\n`,
    );
    expect([answer.status, JSON.parse(answer.body).code]).toEqual([400, "malformed_request"]);
    expect(answer.body).not.toContain(goodPayload);
  });

  test("two Authorization headers", async () => {
    await using server = startServer();
    const answer = await sendRaw(
      server.port,
      `POST /api/auth/ws-ticket HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: Bearer ${GOOD}\r\nAuthorization: Bearer ${GOOD}\r\nContent-Length: 0\r\n\r\n`,
    );
    expect([answer.status, JSON.parse(answer.body).code]).toEqual([400, "malformed_request"]);
  });
});

describe("a token anywhere but in the Authorization header is no token", () => {
  test.each<[string, RequestInit & { query?: string }, number, string]>([
    ["nowhere", {}, 401, "token_missing"],
    ["in the query", { query: `?token=${GOOD}` }, 400, "credential_in_url"],
    ["in the query as access_token", { query: `?access_token=${GOOD}` }, 400, "credential_in_url"],
    ["in the query as the ticket", { query: `?ticket=${GOOD}` }, 400, "credential_in_url"],
    [
      "in the query and in the header",
      { query: `?token=${GOOD}`, headers: { Authorization: `Bearer ${GOOD}` } },
      400,
      "credential_in_url",
    ],
    ["in a form body", { body: new URLSearchParams({ access_token: GOOD }) }, 401, "token_missing"],
    [
      "in a JSON body",
      { body: JSON.stringify({ token: GOOD }), headers: { "Content-Type": "application/json" } },
      401,
      "token_missing",
    ],
    ["in a cookie", { headers: { Cookie: `token=${GOOD}; jwt=${GOOD}` } }, 401, "token_missing"],
    [
      "in headers of other names",
      { headers: { "X-Access-Token": GOOD, "X-Authorization": `Bearer ${GOOD}` } },
      401,
      "token_missing",
    ],
    [
      "under the scheme Basic",
      { headers: { Authorization: `Basic ${GOOD}` } },
      401,
      "token_missing",
    ],
    [
      "under the scheme Token",
      { headers: { Authorization: `Token ${GOOD}` } },
      401,
      "token_missing",
    ],
    [
      "under a scheme that only starts like Bearer",
      { headers: { Authorization: `Bearerish ${GOOD}` } },
      401,
      "token_missing",
    ],
    ["without a scheme", { headers: { Authorization: GOOD } }, 401, "token_missing"],
    [
      "in the proxy's header",
      { headers: { "Proxy-Authorization": `Bearer ${GOOD}` } },
      401,
      "token_missing",
    ],
  ])("%s", async (_, { query = "", ...init }, status, code) => {
    await using server = startServer();
    const answer = await fetch(`${server.origin}/api/auth/ws-ticket${query}`, {
      method: "POST",
      ...init,
    });
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([
      status,
      code,
    ]);
    const challenge = answer.headers.get("www-authenticate");
    expect(challenge).toBe(status === 401 ? "Bearer" : null);
  });

  test("beside a valid header a token in the body is ignored", async () => {
    await using server = startServer();
    const answer = await fetch(`${server.origin}/api/auth/ws-ticket`, {
      method: "POST",
      headers: { Authorization: `Bearer ${GOOD}` },
      body: new URLSearchParams({ access_token: forge(HEADER, { ...CLAIMS, sub: "bob" }) }),
    });
    expect(answer.status).toBe(200);
    expect(server.logLines.join("")).toContain('"user":"alice"');
  });
});

describe("signatures", () => {
  test("no character of a token can be another one", async () => {
    for (let index = 0; index < GOOD.length; index++) {
      if (GOOD[index] === ".") continue;
      const other = GOOD[index] === "A" ? "B" : "A";
      const altered = GOOD.slice(0, index) + other + GOOD.slice(index + 1);
      expect(await verify(altered)).toBe("token_invalid");
    }
  });

  test.each([
    ["HS256", "sha256"],
    ["HS384", "sha384"],
    ["HS512", "sha512"],
  ])("%s is accepted under a secret", async (alg, hash) => {
    expect(await verify(forge({ alg }, CLAIMS, { hash }))).toBe("user alice");
  });

  test.each(["RS256", "PS256", "ES256", "EdDSA"])(
    "a genuine %s token is refused where a secret is configured",
    async (alg) => {
      const key = await issuerKey(alg);
      expect(await verify(await key.sign(CLAIMS))).toBe("token_invalid");
    },
  );

  test("the demo's own tokens verify", async () => {
    const token = await signToken({
      secret: TOKEN_SECRET,
      user: "alice",
      expiresAtMs: (NOW + 60) * 1000,
      claims: { sub: "bob", name: "B" },
    });
    expect(await verify(token)).toBe("user bob");
  });
});

describe("one spelling for each token", () => {
  const valid = (header: string, payload: string) => {
    // The MAC covers the segments as they are written: only their spelling is wrong.
    const signature = new Bun.CryptoHasher("sha256", TOKEN_SECRET).update(`${header}.${payload}`);
    return `${header}.${payload}.${signature.digest("base64url")}`;
  };
  const spare = segment({ alg: "HS256" }); // 15 bytes: no spare bits
  const spareHeader = segment({ alg: "HS256", a: 1 }); // 21 bytes
  const spareTwo = segment('{"alg":"HS256","b":11}'); // 22 bytes: four spare bits

  test.each<[string, string]>([
    ["padding behind the header", valid(`${goodHeader}=`, goodPayload)],
    ["padding behind the payload", valid(goodHeader, `${goodPayload}=`)],
    ["double padding behind the payload", valid(goodHeader, `${goodPayload}==`)],
    ["padding behind the signature", `${GOOD}=`],
    ["padding as a percent-escape", `${GOOD}%3D`],
    ["a space in front", ` ${GOOD}`],
    ["a space behind", `${GOOD} `],
    ["a tab behind", `${GOOD}\t`],
    ["a line feed behind", `${GOOD}\n`],
    ["CR LF behind", `${GOOD}\r\n`],
    [
      "a space inside the header",
      valid(`${goodHeader.slice(0, 4)} ${goodHeader.slice(4)}`, goodPayload),
    ],
    [
      "a line feed inside the payload",
      valid(goodHeader, `${goodPayload.slice(0, 4)}\n${goodPayload.slice(4)}`),
    ],
    [
      "a space inside the signature",
      `${goodHeader}.${goodPayload}.${goodSignature.slice(0, 8)} ${goodSignature.slice(8)}`,
    ],
    ["a NUL behind", `${GOOD}\0`],
    [
      "spare bits in the header",
      valid(spareTwo.slice(0, -1) + nextCharacter(spareTwo), goodPayload),
    ],
    ["spare bits in the signature", GOOD.slice(0, -1) + nextCharacter(GOOD)],
    ["a lone character behind the last whole group", valid(`${spareHeader}A`, goodPayload)],
    [
      "a plus in the header",
      valid(`${segment('{"alg":"HS256","a":"').slice(0, 24)}+${spare}`, goodPayload),
    ],
    [
      "the standard alphabet",
      valid(
        goodHeader,
        Buffer.from(JSON.stringify({ ...CLAIMS, q: "???>>>~~~" }))
          .toString("base64")
          .replace(/=+$/, ""),
      ),
    ],
    ["full-width characters", GOOD.replace("e", "ｅ")],
    ["a full-width dot", GOOD.replace(".", "．")],
    ["a long s, which folds to s", GOOD.replace(/$/, "ſ")],
    ["percent-encoded", GOOD.replaceAll(".", "%2E")],
    ["upper case", GOOD.toUpperCase()],
    ["with its scheme", `Bearer ${GOOD}`],
    ["empty", ""],
  ])("%s is refused", async (_, token) => {
    expect(await verify(token)).toBe("token_invalid");
  });

  test("the same segments in their own spelling are accepted", async () => {
    expect(await verify(valid(spareTwo, goodPayload))).toBe("user alice");
    expect(await verify(valid(spareHeader, goodPayload))).toBe("user alice");
    const alphabet = segment({ ...CLAIMS, q: "???>>>~~~" });
    expect(alphabet).toMatch(/[_-]/);
    expect(await verify(valid(goodHeader, alphabet))).toBe("user alice");
  });

  /** The character after the last one: the same bytes to a lenient decoder where only spare bits differ. */
  function nextCharacter(text: string): string {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    return alphabet[alphabet.indexOf(text.at(-1) as string) + 1] as string;
  }
});

describe("size", () => {
  /** A valid token of exactly `length` characters. */
  function tokenOf(length: number): string {
    for (let filler = length; ; filler--) {
      const payload = segment({ ...CLAIMS, filler: "x".repeat(Math.floor((filler * 3) / 4)) });
      if (payload.length + goodHeader.length + 45 <= length) {
        const missing = length - payload.length - goodHeader.length - 45;
        const header = JSON.stringify(HEADER) + " ".repeat(Math.ceil((missing * 3) / 4));
        const token = forge(header, Buffer.from(payload, "base64url").toString());
        if (token.length === length) return token;
      }
    }
  }

  test("the longest token allowed is read, one character more isn't", async () => {
    expect(await verify(tokenOf(MAX_TOKEN_LENGTH))).toBe("user alice");
    expect(await verify(tokenOf(MAX_TOKEN_LENGTH + 1))).toBe("token_invalid");
  });

  test.each([
    [
      "a header nested 100,000 deep",
      `{"alg":"HS256","a":${"[".repeat(1e5)}${"]".repeat(1e5)}}`,
      CLAIMS,
    ],
    [
      "a payload nested 100,000 deep",
      HEADER,
      `{"sub":"alice","exp":${NOW + 60},"a":${"[".repeat(1e5)}${"]".repeat(1e5)}}`,
    ],
    [
      "100,000 claims",
      HEADER,
      { ...Object.fromEntries(Array.from({ length: 1e5 }, (_, i) => [`c${i}`, 1])), ...CLAIMS },
    ],
    ["a claim of a million characters", HEADER, { ...CLAIMS, a: "x".repeat(1e6) }],
  ])("%s is refused for its size, unread", async (_, header, payload) => {
    const token = forge(header, payload);
    // The best of five: a busy machine may interrupt some.
    let bestMs = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round++) {
      const startedMs = performance.now();
      expect(await verify(token)).toBe("token_invalid");
      bestMs = Math.min(bestMs, performance.now() - startedMs);
    }
    expect(bestMs).toBeLessThan(50);
  });

  test("deep nesting below the cap does no harm", async () => {
    const deep = `${"[".repeat(2_500)}${"]".repeat(2_500)}`;
    const payload = `{"sub":"alice","exp":${NOW + 60},"a":${deep}}`;
    expect(await verify(forge(HEADER, payload))).toBe("user alice");
    // Before anybody knows who has signed it, that would take too long.
    expect(await verify(forge(`{"alg":"HS256","a":${deep}}`, CLAIMS))).toBe("token_invalid");
    expect(await verify(forge(`{"alg":"HS256","a":${deep.slice(1)}}`, CLAIMS))).toBe(
      "token_invalid",
    );
  });
});

describe("header parameters", () => {
  test.each<[string, unknown]>([
    ["crit with an unknown name", { ...HEADER, crit: ["x"], x: 1 }],
    ["crit with a known claim", { ...HEADER, crit: ["exp"], exp: CLAIMS.exp }],
    ["an empty crit", { ...HEADER, crit: [] }],
    ["crit as a string", { ...HEADER, crit: "exp" }],
    ["crit as null", { ...HEADER, crit: null }],
    ["crit with a name twice", { ...HEADER, crit: ["b64", "b64"], b64: true }],
    ["crit with a name that isn't there", { ...HEADER, crit: ["x"] }],
    ["crit with alg", { ...HEADER, crit: ["alg"] }],
    ["an unencoded payload, declared", { ...HEADER, crit: ["b64"], b64: false }],
    ["an unencoded payload, undeclared", { ...HEADER, b64: false }],
    ["b64 that changes nothing", { ...HEADER, crit: ["b64"], b64: true }],
    ["crit given twice, harmless last", '{"alg":"HS256","crit":["x"],"crit":[]}'],
    ["alg none behind alg HS256", '{"alg":"HS256","alg":"none"}'],
    ["alg HS512 behind alg HS256", '{"alg":"HS256","alg":"HS512"}'],
    ...[
      "id_token",
      "logout+jwt",
      "dpop+jwt",
      "secevent+jwt",
      "entity-statement+jwt",
      "oauth-authz-req+jwt",
      "JWE",
      "JOSE",
      "JWT2",
      "",
      " JWT",
      "JWT ",
      "at+jwt; v=1",
      "at jwt",
      "application/application/jwt",
      "text/jwt",
      1,
      true,
      null,
      {},
      ["JWT"],
    ].map((typ): [string, unknown] => [`typ ${JSON.stringify(typ)}`, { alg: "HS256", typ }]),
  ])("%s is refused", async (_, header) => {
    expect(await verify(forge(header, CLAIMS))).toBe("token_invalid");
  });

  test.each<[string, unknown]>([
    ["no typ", { alg: "HS256" }],
    ...["JWT", "jwt", "Jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"].map(
      (typ): [string, unknown] => [`typ ${typ}`, { alg: "HS256", typ }],
    ),
    ["alg HS256 behind alg none", '{"alg":"none","alg":"HS256"}'],
    ["white space inside the header's JSON", '{"typ":"JWT",\r\n "alg":"HS256"}'],
    ["a key id that looks like a path", { ...HEADER, kid: "../../../../dev/null" }],
    ["a key id that looks like SQL", { ...HEADER, kid: "x' UNION SELECT 'secret" }],
    ["a key of the token's own, which is not used", { ...HEADER, jwk: { kty: "oct", k: "AAAA" } }],
    [
      "a certificate, which is not used",
      { ...HEADER, x5c: ["MIIB"], x5t: "AAAA", "x5t#S256": "AAAA" },
    ],
  ])("%s is accepted", async (_, header) => {
    expect(await verify(forge(header, CLAIMS))).toBe("user alice");
  });

  test("a token signed with the key that it brings along is refused", async () => {
    const secret = "k".repeat(32);
    const jwk = { kty: "oct", k: segment(secret) };
    expect(await verify(forge({ ...HEADER, jwk }, CLAIMS, { secret }))).toBe("token_invalid");
    const [own, issuers] = await Promise.all([issuerKey("ES256", "own"), issuerKey("ES256", "k1")]);
    await using keyServer = startKeyServer(issuers);
    const token = await own.sign(CLAIMS, { jwk: own.jwk, kid: "k1" });
    expect(await verify(token, { keys: { jwksUrl: keyServer.url } })).toBe("token_invalid");
  });

  test("addresses inside a token are never requested", async () => {
    const [own, issuers] = await Promise.all([issuerKey("ES256", "own"), issuerKey("ES256", "k1")]);
    await using canary = startKeyServer(own);
    await using keyServer = startKeyServer(issuers);
    const keys = { jwksUrl: keyServer.url };
    for (const address of [canary.url.href, "http://169.254.169.254/latest/meta-data/"]) {
      const header = { jku: address, x5u: address };
      expect(await verify(await own.sign(CLAIMS, header), { keys })).toBe("token_invalid");
      expect(await verify(await own.sign(CLAIMS, { ...header, kid: "k1" }), { keys })).toBe(
        "token_invalid",
      );
      expect(await verify(await issuers.sign(CLAIMS, header), { keys })).toBe("user alice");
      expect(await verify(forge({ ...HEADER, ...header }, CLAIMS))).toBe("user alice");
      await expectTokenInvalid(await own.sign(CLAIMS, header), { keys });
    }
    expect(canary.requests).toEqual([]);
  });
});

describe("times", () => {
  test.each<[string, unknown]>([
    ["missing", undefined],
    ["a string", String(NOW + 60)],
    ["null", null],
    ["true", true],
    ["a list", [NOW + 60]],
    ["an object", {}],
    ["negative", -1],
    ["zero", 0],
    ["2^53", 2 ** 53],
    ["the largest number there is", Number.MAX_VALUE],
    ["in milliseconds", (NOW + 60) * 1000],
    ["in the year 9999", Date.parse("9999-12-31T23:59:59Z") / 1000],
    ["more than ten years away", NOW + 10 * 366 * 86_400 + 1],
  ])("exp that is %s is refused", async (_, exp) => {
    expect(await verify(forge(HEADER, { sub: "alice", exp }))).toBe("token_invalid");
  });

  test.each([
    ["1e999", '{"sub":"alice","exp":1e999}'],
    ["minus infinity", '{"sub":"alice","exp":-1e999}'],
    ["NaN", '{"sub":"alice","exp":NaN}'],
    ["fine, with an iat of 1e999", `{"sub":"alice","exp":${NOW + 60},"iat":1e999}`],
    ["over twice, past last", `{"sub":"alice","exp":${NOW + 60},"exp":${NOW - 60}}`],
  ])("exp that is %s is refused", async (_, payload) => {
    expect(await verify(forge(HEADER, payload))).toBe("token_invalid");
  });

  test.each<[string, number, string]>([
    ["6 s ago", NOW - 6, "token_invalid"],
    ["5 s ago", NOW - 5, "token_invalid"],
    ["1 s ago", NOW - 1, "token_invalid"],
    ["now", NOW, "token_invalid"],
    ["in a millisecond", NOW + 0.001, "user alice"],
    ["in a fraction of a second", NOW + 0.5, "user alice"],
    ["ten years away", NOW + 10 * 366 * 86_400, "user alice"],
  ])("exp %s", async (_, exp, expected) => {
    expect(await verify(forge(HEADER, { sub: "alice", exp }))).toBe(expected);
  });

  test.each<[string, number, number | undefined]>([
    ["that expired 4 s ago gets none", -4, undefined],
    ["that expires now gets none", 0, undefined],
    ["with less than a second left gets none", 0.99, undefined],
    ["with a second left gets one for a second", 1, 1],
    ["with 1.99 s left gets one for a second", 1.99, 1],
    ["with 29 s left gets one for 29", 29, 29],
    ["with 30 s left gets one for 30", 30, 30],
    ["with 31 s left gets one for 30", 31, 30],
  ])("a ticket never outlives its token: one %s", async (_, leftSeconds, expiresIn) => {
    await using server = startServer();
    const answer = await server.mint(forge(HEADER, { sub: "alice", exp: NOW + leftSeconds }));
    const body = (await answer.json()) as { expiresIn?: number; code?: string };
    if (expiresIn !== undefined) expect(body.expiresIn).toBe(expiresIn);
    else expect([answer.status, body.code]).toEqual([401, "token_invalid"]);
  });

  test.each<[string, Record<string, unknown>, string]>([
    ["nbf 5 s ahead, the tolerance", { nbf: NOW + 5 }, "user alice"],
    ["nbf 6 s ahead", { nbf: NOW + 6 }, "token_invalid"],
    ["nbf in the past", { nbf: NOW - 60 }, "user alice"],
    ["nbf as a string", { nbf: "0" }, "token_invalid"],
    ["nbf null", { nbf: null }, "token_invalid"],
    ["iat in the past", { iat: NOW - 60 }, "user alice"],
    ["iat 5 s ahead, the tolerance", { iat: NOW + 5 }, "user alice"],
    ["iat 6 s ahead", { iat: NOW + 6 }, "token_invalid"],
    ["iat in milliseconds", { iat: NOW * 1000 }, "token_invalid"],
    ["iat before the epoch", { iat: -1 }, "token_invalid"],
    ["iat with a fraction", { iat: NOW - 0.5 }, "user alice"],
    ["iat as a string", { iat: "yesterday" }, "token_invalid"],
    ["iat as a list", { iat: [NOW] }, "token_invalid"],
  ])("%s", async (_, claims, expected) => {
    expect(await verify(forge(HEADER, { ...CLAIMS, ...claims }))).toBe(expected);
  });

  test("verification follows the wall clock, however it jumps", async () => {
    await using server = startServer();
    const token = await server.token("alice", { ttlMs: 1_800_000 });
    expect((await server.mint(token)).status).toBe(200);
    server.clock.jumpWall(3_600_000);
    expect((await server.mint(token)).status).toBe(401);
    server.clock.jumpWall(-7_200_000);
    expect((await server.mint(token)).status).toBe(200);
  });

  test("the user carries the token's beginning and end in whole milliseconds", async () => {
    const claims = { sub: "alice", iat: NOW - 0.5, exp: NOW + 60.5 };
    expect(await identityOf(claims)).toMatchObject({
      id: "alice",
      issuedAtMs: (NOW - 0.5) * 1000,
      expiresAtMs: (NOW + 60.5) * 1000,
    });
    expect((await identityOf(CLAIMS)).issuedAtMs).toBe(0);
  });
});

/** The identity of a token with these claims. */
async function identityOf(claims: Record<string, unknown>): Promise<Identity> {
  const keys = { secret: TOKEN_SECRET };
  const verifier = createTokenVerifier({ keys, clock: fakeClock(), log: () => {} });
  const verified = await verifier(forge(HEADER, claims));
  if (!verified.ok) throw new Error(`Refused: ${verified.code}`);
  return verified.identity;
}

describe("the sign-in that a token belongs to", () => {
  const sessionOf = async (claims: Record<string, unknown>) =>
    (await identityOf({ ...CLAIMS, ...claims })).session as string;
  const long = "s".repeat(255);

  test.each<[string, Record<string, unknown>, string]>([
    ["its sid", { sid: "s1", jti: "a" }, "s1"],
    ["its jti, where it has no sid", { jti: "a" }, "a"],
    ["its jti, where its sid is empty", { sid: "", jti: "a" }, "a"],
    ["a sid of 255 characters", { sid: long }, long],
  ])("is named by %s", async (_, claims, name) => {
    expect(await sessionOf(claims)).toBe(name);
  });

  test.each<[string, Record<string, unknown>]>([
    ["a longer sid", { sid: `${long}s` }],
    ["a sid with a line feed", { sid: "s\n1" }],
    ["a sid that is a number", { sid: 7 }],
    ["a sid that is an object", { sid: { id: "s1" } }],
    ["a longer jti", { jti: `${long}s` }],
    ["neither", {}],
    ["empty ones", { sid: "", jti: "" }],
  ])("is named by a hash where it has %s", async (_, claims) => {
    expect(await sessionOf(claims)).toMatch(/^[0-9a-f]{64}$/);
  });

  test.each<[string, Record<string, unknown>, Record<string, unknown>, boolean]>([
    ["two tokens of one sid", { sid: "s1", jti: "a" }, { sid: "s1", jti: "b" }, true],
    ["two sids", { sid: "s1" }, { sid: "s2" }, false],
    ["one jti", { jti: "a" }, { jti: "a", name: "renamed" }, true],
    ["two jtis", { jti: "a" }, { jti: "b" }, false],
    ["two tokens of one long sid", { sid: `${long}s`, jti: "a" }, { sid: `${long}s` }, true],
    ["two long sids with the same start", { sid: `${long}s` }, { sid: `${long}t` }, false],
    ["two tokens of one sid that is a number", { sid: 7, jti: "a" }, { sid: 7 }, true],
    ["two sids that are objects", { sid: { id: 1 } }, { sid: { id: 2 } }, false],
    ["a number and its text as the sid", { sid: 7 }, { sid: "7" }, false],
    ["the same token twice", {}, {}, true],
    ["two tokens with neither", {}, { exp: NOW + 60 }, false],
    ["empty ones count as none", { sid: "", exp: NOW + 60 }, { sid: "", exp: NOW + 61 }, false],
  ])("of %s: the same or not", async (_, one, two, same) => {
    expect((await sessionOf(one)) === (await sessionOf(two))).toBe(same);
  });

  test("doesn't depend on the signature, which others can rewrite", async () => {
    const key = await issuerKey("ES256", "k1");
    await using keyServer = startKeyServer(key);
    const verifier = createTokenVerifier({
      keys: { jwksUrl: keyServer.url },
      clock: fakeClock(),
      log: () => {},
    });
    const token = await key.sign(CLAIMS);
    const [header, payload, signature = ""] = token.split(".");
    const bytes = Buffer.from(signature, "base64url");
    // (r, n − s) is as good as (r, s).
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const s = BigInt(`0x${bytes.subarray(32).toString("hex")}`);
    bytes.write((order - s).toString(16).padStart(64, "0"), 32, "hex");
    const rewritten = `${header}.${payload}.${bytes.toString("base64url")}`;
    expect(rewritten).not.toBe(token);
    const [one, two] = [await verifier(token), await verifier(rewritten)];
    expect(one).toMatchObject({ ok: true, identity: { session: expect.any(String) } });
    expect(two).toEqual(one);
  });
});

describe("the user's claim", () => {
  test.each<[string, unknown]>([
    ["missing", undefined],
    ["empty", ""],
    ["a number", 7],
    ["zero", 0],
    ["null", null],
    ["true", true],
    ["a list", ["alice"]],
    ["an object", { toString: "alice" }],
    ["longer than 255 characters", "a".repeat(256)],
    ["with a NUL", "ali\0ce"],
    ["with a line feed", "alice\n"],
    ["with DEL", "alice\x7f"],
    ["with a C1 control", "alice\x85"],
  ])("%s is refused", async (_, sub) => {
    expect(await verify(forge(HEADER, { ...CLAIMS, sub }))).toBe("token_invalid");
  });

  test.each([
    ["half a surrogate pair", `{"sub":"\\ud800","exp":${NOW + 60}}`],
    ["only inside __proto__", `{"__proto__":{"sub":"alice"},"exp":${NOW + 60}}`],
    ["in a list", `[{"sub":"alice","exp":${NOW + 60}}]`],
    ["a payload that is a string", '"alice"'],
    ["a payload that is a number", "1"],
    ["a payload that is null", "null"],
    ["a payload that is empty", " "],
    ["a payload that is no JSON", `{"sub":"alice","exp":${NOW + 60},}`],
    ["a payload with something behind it", `{"sub":"alice","exp":${NOW + 60}}{}`],
  ])("%s is refused", async (_, payload) => {
    expect(await verify(forge(HEADER, payload))).toBe("token_invalid");
  });

  test("a payload that is no UTF-8 is refused", async () => {
    const signed = `${goodHeader}.${Buffer.from(`{"sub":"al\xffce","exp":${NOW + 60}}`, "latin1").toString("base64url")}`;
    const signature = new Bun.CryptoHasher("sha256", TOKEN_SECRET)
      .update(signed)
      .digest("base64url");
    expect(await verify(`${signed}.${signature}`)).toBe("token_invalid");
  });

  test.each([
    ["255 characters", "a".repeat(255)],
    ["one character", "a"],
    ["an e-mail address", "alice+chat@example.com"],
    ["not ASCII", "Ålice 李 🦊"],
    ["a name every object has", "__proto__"],
    ["a quote and a brace", '"}{$'],
  ])("%s is accepted", async (_, sub) => {
    expect(await verify(forge(HEADER, { ...CLAIMS, sub }))).toBe(`user ${sub}`);
  });

  test("given twice the last one counts, as for every reader of JSON", async () => {
    expect(await verify(forge(HEADER, `{"sub":"alice","sub":"bob","exp":${NOW + 60}}`))).toBe(
      "user bob",
    );
  });

  test.each<[string, string, Record<string, unknown>, string]>([
    ["the configured one counts", "email", { email: "a@example.com" }, "user a@example.com"],
    ["sub is no substitute for it", "email", {}, "token_invalid"],
    ["its type counts, too", "email", { email: ["a@example.com"] }, "token_invalid"],
    [
      "an address that was confirmed",
      "email",
      { email: "a@example.com", email_verified: true },
      "user a@example.com",
    ],
    [
      "an address that nobody has confirmed",
      "email",
      { email: "a@example.com", email_verified: false },
      "token_invalid",
    ],
    [
      "the same where the issuer writes it as text",
      "email",
      { email: "a@example.com", email_verified: "false" },
      "token_invalid",
    ],
    [
      "an address that doesn't matter",
      "sub",
      { email: "a@example.com", email_verified: false },
      "user alice",
    ],
    [
      "a claim with a URL as its name",
      "https://example.com/id",
      { "https://example.com/id": "7" },
      "user 7",
    ],
    ["what every object inherits is no claim", "toString", {}, "token_invalid"],
    ["the prototype is no claim", "__proto__", {}, "token_invalid"],
  ])("under another name: %s", async (_, userClaim, claims, expected) => {
    expect(await verify(forge(HEADER, { ...CLAIMS, ...claims }), { userClaim })).toBe(expected);
  });
});

describe("issuer and audience", () => {
  const issuer = "https://id.example.com";
  const audience = "chat";

  test.each<[string, Record<string, unknown>, boolean]>([
    ["both right", { iss: issuer, aud: audience }, true],
    ["the audience in a list", { iss: issuer, aud: ["other", audience] }, true],
    ["no issuer", { aud: audience }, false],
    ["an issuer that starts like it", { iss: `${issuer}.evil.example`, aud: audience }, false],
    ["the start of the issuer", { iss: issuer.slice(0, -1), aud: audience }, false],
    ["the issuer with a slash behind", { iss: `${issuer}/`, aud: audience }, false],
    ["the issuer in other case", { iss: issuer.toUpperCase(), aud: audience }, false],
    ["the issuer in a list", { iss: [issuer], aud: audience }, false],
    ["an empty issuer", { iss: "", aud: audience }, false],
    ["the issuer as null", { iss: null, aud: audience }, false],
    ["no audience", { iss: issuer }, false],
    ["the start of the audience", { iss: issuer, aud: "cha" }, false],
    ["an audience that starts like it", { iss: issuer, aud: "chatter" }, false],
    ["the audience in other case", { iss: issuer, aud: "CHAT" }, false],
    ["several audiences in one string", { iss: issuer, aud: "chat other" }, false],
    ["a list without it", { iss: issuer, aud: ["other", "more"] }, false],
    ["an empty list", { iss: issuer, aud: [] }, false],
    ["a list in a list", { iss: issuer, aud: [[audience]] }, false],
    ["an object with it", { iss: issuer, aud: { chat: true } }, false],
    ["an asterisk", { iss: issuer, aud: "*" }, false],
    ["issuer and audience swapped", { iss: audience, aud: issuer }, false],
  ])("%s", async (_, claims, accepted) => {
    const token = forge(HEADER, { ...CLAIMS, ...claims });
    expect(await verify(token, { issuer, audience })).toBe(
      accepted ? "user alice" : "token_invalid",
    );
  });

  test("one of several audiences is enough, in whatever order", async () => {
    const audiences = ["web", "mobile"];
    for (const aud of ["web", "mobile", ["other", "mobile"]]) {
      const token = forge(HEADER, { ...CLAIMS, aud });
      expect(await verify(token, { audience: audiences })).toBe("user alice");
    }
    for (const aud of ["web,mobile", "chat", ["other"], [audiences]]) {
      const token = forge(HEADER, { ...CLAIMS, aud });
      expect(await verify(token, { audience: audiences })).toBe("token_invalid");
    }
  });

  test("are not looked at where none is configured", async () => {
    expect(await verify(forge(HEADER, { ...CLAIMS, iss: 7, aud: {} }))).toBe("user alice");
  });
});

const ASYMMETRIC = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
];

describe("under a key set", () => {
  test.each(ASYMMETRIC)("%s is accepted, and nothing but a genuine signature", async (alg) => {
    const [key, other] = await Promise.all([issuerKey(alg, "k1"), issuerKey("ES256", "k2")]);
    await using keyServer = startKeyServer(key, other);
    const keys = { jwksUrl: keyServer.url };
    const token = await key.sign(CLAIMS);
    const [header = "", , signature = ""] = token.split(".");
    expect(await verify(token, { keys })).toBe("user alice");
    const refused = [
      `${header}.${segment({ ...CLAIMS, sub: "bob" })}.${signature}`,
      `${header}.${goodPayload}.${"A".repeat(signature.length)}`,
      `${header}.${goodPayload}.AA`,
      await other.sign(CLAIMS, { alg: "ES256", kid: "k1" }),
    ];
    for (const altered of refused) expect(await verify(altered, { keys })).toBe("token_invalid");
  });

  test("a public key is never taken for a secret", async () => {
    const key = await issuerKey("RS256", "k1");
    await using keyServer = startKeyServer(key);
    const keys = { jwksUrl: keyServer.url };
    const imported = await crypto.subtle.importKey(
      "jwk",
      key.jwk as JsonWebKey,
      { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
      true,
      ["verify"],
    );
    const der = Buffer.from(await crypto.subtle.exportKey("spki", imported));
    const lines = der.toString("base64").replaceAll(/.{64}/g, "$&\n");
    const pem = `-----BEGIN PUBLIC KEY-----\n${lines}\n-----END PUBLIC KEY-----`;
    const spellings = [
      der,
      pem,
      `${pem}\n`,
      JSON.stringify(key.jwk),
      key.jwk.n as string,
      Buffer.from(key.jwk.n as string, "base64url"),
      TOKEN_SECRET,
    ];
    for (const secret of spellings) {
      for (const alg of ["HS256", "RS256"]) {
        const token = forge({ alg, kid: "k1" }, CLAIMS, { secret });
        expect(await verify(token, { keys })).toBe("token_invalid");
      }
    }
    await expectTokenInvalid(forge({ alg: "HS256", kid: "k1" }, CLAIMS, { secret: pem }), { keys });
  });

  test("a secret in the key set is never used", async () => {
    const rsa = await issuerKey("RS256", "k1");
    for (const jwk of [
      { kty: "oct", k: segment(Buffer.from(TOKEN_SECRET).toString()), kid: "k1", alg: "HS256" },
      { kty: "oct", k: segment(Buffer.from(TOKEN_SECRET).toString()) },
    ]) {
      await using keyServer = startKeyServer(jwk, rsa);
      const keys = { jwksUrl: keyServer.url };
      for (const header of [HEADER, { ...HEADER, kid: "k1" }]) {
        expect(await verify(forge(header, CLAIMS), { keys })).toBe("token_invalid");
      }
    }
  });

  test.each<[string, string, Record<string, unknown>]>([
    ["RS256 under a key for PS256", "RS256", { alg: "PS256" }],
    ["PS256 under a key for RS256", "PS256", { alg: "RS256" }],
    ["RS256 under a key for RS512", "RS256", { alg: "RS512" }],
    ["ES256 under a key for ES384", "ES256", { alg: "ES384" }],
    ["a key for encryption", "RS256", { use: "enc" }],
    ["a key that may not verify", "RS256", { use: undefined, key_ops: ["encrypt"] }],
    ["a key of another type", "RS256", { kty: "EC" }],
    ["a key without its modulus", "RS256", { n: undefined }],
    ["a point that isn't on the curve", "ES256", { x: "A".repeat(43) }],
  ])("%s is refused", async (_, alg, changes) => {
    const key = await issuerKey(alg, "k1");
    await using keyServer = startKeyServer({ ...key.jwk, ...changes } as typeof key.jwk);
    const token = await key.sign(CLAIMS);
    expect(await verify(token, { keys: { jwksUrl: keyServer.url } })).toBe("token_invalid");
  });

  test("an RSA key of 1024 bits is refused", async () => {
    const algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
    const pair = await crypto.subtle.generateKey(
      { ...algorithm, modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]) },
      true,
      ["sign", "verify"],
    );
    const { kty, n, e } = await crypto.subtle.exportKey("jwk", pair.publicKey);
    await using keyServer = startKeyServer({ kty, n, e, alg: "RS256" } as { kty: "RSA" });
    const signed = `${segment({ alg: "RS256" })}.${goodPayload}`;
    const signature = await crypto.subtle.sign(algorithm, pair.privateKey, Buffer.from(signed));
    const token = `${signed}.${Buffer.from(signature).toString("base64url")}`;
    expect(await verify(token, { keys: { jwksUrl: keyServer.url } })).toBe("token_invalid");
  });

  test("an ES256 signature in DER is refused", async () => {
    const key = await issuerKey("ES256", "k1");
    await using keyServer = startKeyServer(key);
    const [header, payload, signature = ""] = (await key.sign(CLAIMS)).split(".");
    const raw = Buffer.from(signature, "base64url");
    const integer = (bytes: Uint8Array) => {
      const padded = (bytes[0] as number) > 127 ? Buffer.concat([Buffer.alloc(1), bytes]) : bytes;
      return Buffer.concat([Buffer.from([2, padded.length]), padded]);
    };
    const body = Buffer.concat([integer(raw.subarray(0, 32)), integer(raw.subarray(32))]);
    const der = Buffer.concat([Buffer.from([0x30, body.length]), body]).toString("base64url");
    expect(await verify(`${header}.${payload}.${der}`, { keys: { jwksUrl: keyServer.url } })).toBe(
      "token_invalid",
    );
  });

  test("spelling, typ, crit and times count as under a secret", async () => {
    const key = await issuerKey("ES256", "k1");
    await using keyServer = startKeyServer(key);
    const keys = { jwksUrl: keyServer.url };
    const token = await key.sign(CLAIMS);
    for (const refused of [
      `${token}=`,
      `${token}\n`,
      await key.sign(CLAIMS, { typ: "logout+jwt" }),
      await key.sign(CLAIMS, { b64: true, crit: ["b64"] }),
      await key.sign({ ...CLAIMS, exp: NOW - 5 }),
      await key.sign({ ...CLAIMS, sub: 7 }),
    ]) {
      expect(await verify(refused, { keys })).toBe("token_invalid");
    }
  });
});

describe("known answers", () => {
  /** RFC 7515 appendix A: issuer joe, no subject, expires 2011-03-22T18:43:00Z. */
  const payload =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
  const options = { clock: fakeClock(1_300_819_379_000), userClaim: "iss" };
  const es256 = {
    kty: "EC",
    crv: "P-256",
    x: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
  };
  const rs256 = {
    kty: "RSA",
    n: "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    e: "AQAB",
  };
  const ed25519 = { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" };

  test("RFC 7515 A.1, HS256", async () => {
    const secret = Buffer.from(
      "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
      "base64url",
    );
    const token = `eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.${payload}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk`;
    expect(await verify(token, { ...options, keys: { secret } })).toBe("user joe");
    expect(await verify(token, { ...options, keys: { secret }, clock: fakeClock() })).toBe(
      "token_invalid",
    );
  });

  test.each<[string, string, string, string]>([
    [
      "RFC 7515 A.2, RS256",
      "eyJhbGciOiJSUzI1NiJ9",
      "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
      "user joe",
    ],
    [
      "RFC 7515 A.3, ES256",
      "eyJhbGciOiJFUzI1NiJ9",
      "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
      "user joe",
    ],
    ["RFC 7515 A.5, unsecured", "eyJhbGciOiJub25lIn0", "", "token_invalid"],
  ])("%s", async (_, header, signature, expected) => {
    await using keyServer = startKeyServer(rs256, es256);
    const token = `${header}.${payload}.${signature}`;
    expect(await verify(token, { ...options, keys: { jwksUrl: keyServer.url } })).toBe(expected);
  });

  test("RFC 8037 A.4: a genuine Ed25519 signature over what is no set of claims", async () => {
    await using keyServer = startKeyServer(ed25519);
    const token =
      "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    const { payload: signed } = await compactVerify(token, await importJWK(ed25519, "EdDSA"));
    expect(Buffer.from(signed).toString()).toBe("Example of Ed25519 signing");
    expect(await verify(token, { ...options, keys: { jwksUrl: keyServer.url } })).toBe(
      "token_invalid",
    );
  });
});

describe("readBearer", () => {
  test.each<[string, string | null, string]>([
    ["one space", "Bearer abc", "abc"],
    ["several spaces", "Bearer    abc", "abc"],
    ["any case of the scheme", "bEaReR abc", "abc"],
    ["every character of the grammar", "Bearer aZ09-._~+/==", "aZ09-._~+/=="],
    ["no header", null, "token_missing"],
    ["an empty header", "", "token_missing"],
    ["another scheme", "Basic abc", "token_missing"],
    ["a longer scheme", "Bearers abc", "token_missing"],
    ["a tab for the space", "Bearer\tabc", "token_missing"],
    ["no token", "Bearer ", "malformed_request"],
    ["a comma", "Bearer abc,def", "malformed_request"],
    ["a sign of equality inside", "Bearer a=b", "malformed_request"],
    ["a space behind", "Bearer abc ", "malformed_request"],
    ["a line feed behind", "Bearer abc\n", "malformed_request"],
    ["a letter beyond ASCII", "Bearer abç", "malformed_request"],
  ])("%s", (_, header, expected) => {
    const bearer = readBearer(header);
    expect(bearer.ok ? bearer.token : bearer.code).toBe(expected);
  });

  test("never throws, and hands on nothing outside the grammar", () => {
    const header = fc.oneof(
      anyText(300),
      fc.string({ maxLength: 300 }).map((rest) => `Bearer ${rest}`),
    );
    fc.assert(
      fc.property(header, (text) => {
        const bearer = readBearer(text);
        if (bearer.ok) expect(bearer.token).toMatch(/^[A-Za-z0-9._~+/-]+=*$/);
      }),
    );
  });

  test.each([
    ["spaces", `Bearer${" ".repeat(15_000)}`],
    ["spaces and then a token", `Bearer${" ".repeat(15_000)}a b`],
    ["signs of equality", `Bearer a${"=".repeat(15_000)}b`],
    ["letters", `Bearer ${"a".repeat(15_000)},`],
  ])("takes no time over a long run of %s", (_, header) => {
    // The best of five: a busy machine may interrupt some.
    let bestMs = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round++) {
      const startedMs = performance.now();
      expect(readBearer(header)).toEqual({ ok: false, code: "malformed_request" });
      bestMs = Math.min(bestMs, performance.now() - startedMs);
    }
    expect(bestMs).toBeLessThan(50);
  });
});

test("arbitrary text is never a token, and never an exception", async () => {
  const part = fc.oneof(
    anyText(40),
    fc.json().map(segment),
    fc.constantFrom(goodHeader, goodPayload, goodSignature),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(part, { maxLength: 5 }), async (parts) => {
      const token = parts.join(".");
      fc.pre(token !== GOOD);
      expect(await verify(token)).toBe("token_invalid");
    }),
  );
});

test("isUserId takes every string of 1 to 255 characters without controls, and nothing else", () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      if (typeof value !== "string") expect(isUserId(value)).toBe(false);
    }),
  );
  fc.assert(
    fc.property(anyText(300), (value) => {
      const isValid = !/\p{Cc}/u.test(value) && value.isWellFormed();
      expect(isUserId(value)).toBe(isValid && value.length >= 1 && value.length <= 255);
    }),
  );
});
