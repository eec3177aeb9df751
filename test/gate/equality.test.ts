import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { jwtVerify } from "jose";
import { createTokenVerifier } from "../../src/gate/token.ts";
import { fakeClock } from "../support/clock.ts";
import { TOKEN_SECRET } from "../support/people.ts";
import { repeats } from "../support/repeat.ts";

const TOKENS = repeats(5_000, 100_000);
/** Tokens verified at once. */
const AT_ONCE = 500;
const HASHES = { HS256: "sha256", HS384: "sha384", HS512: "sha512" } as const;

/** Numbers from a seed, so that a failure can be repeated. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const clock = fakeClock();
const nowSeconds = clock.nowMs() / 1000;
const random = randomOf(20_261_125);

function pick<T>(...values: readonly T[]): T {
  return values[Math.floor(random() * values.length)] as T;
}

/** A value that is right most of the time, or else one of the wrong ones. */
function mostly<T>(right: T, ...wrong: readonly unknown[]): T {
  return random() < 0.93 ? right : (pick(...wrong) as T);
}

function encode(content: unknown): string {
  const text = typeof content === "string" ? content : JSON.stringify(content);
  return Buffer.from(text).toString("base64url");
}

/** A token with anything between nothing and everything wrong with it. */
function makeToken(): string {
  const alg = mostly(pick("HS256", "HS384", "HS512"), "none", "hs256", "RS256", "", 1, undefined);
  const offset = () => pick(-100, -6, -5, -4, -1, -0.5, 0, 0.5, 1, 4, 5, 6, 100, 3_600);
  const claims = {
    sub: mostly("alice", undefined),
    iss: mostly("https://issuer.test", "https://other.test", undefined, 1, ["https://issuer.test"]),
    aud: mostly(pick<unknown>("chat", ["chat"], ["other", "chat"]), "other", [], undefined, 1, {
      chat: 1,
    }),
    exp: mostly(nowSeconds + offset(), undefined, "1", null, -1, 0, true),
    nbf: mostly(pick(undefined, nowSeconds + offset()), "0", null, [], false),
    iat: mostly(pick(undefined, nowSeconds - 5), "0", null, {}),
    jti: pick(undefined, "id"),
  };
  const payload = mostly<unknown>(claims, [], "null", "1", '"text"', "{", "", "[{}]", "\ufeff{}");
  const header = mostly<unknown>({ alg, typ: pick("JWT", "at+jwt", undefined) }, [], "null", "{");
  const signed = `${encode(header)}.${encode(payload)}`;
  const hash = HASHES[alg as keyof typeof HASHES] ?? "sha256";
  const secret = mostly<string | Uint8Array>(TOKEN_SECRET, "another secret of at least 32 bytes!");
  const signature = createHmac(hash, secret).update(signed).digest("base64url");
  const spoiled = pick(signature.slice(0, -1), signature.slice(1), `${signature}A`, "", "AAAA");
  return mostly(
    `${signed}.${signature}`,
    `${signed}.${spoiled}`,
    signed,
    `${signed}.`,
    `.${signed}`,
  );
}

test(`jose accepts and refuses the same ${TOKENS.toLocaleString("en")} tokens`, async () => {
  const verify = createTokenVerifier({
    ...{ keys: { secret: TOKEN_SECRET }, issuer: "https://issuer.test", audience: "chat" },
    ...{ clock, log: () => {} },
  });
  const options = {
    algorithms: Object.keys(HASHES),
    clockTolerance: 5,
    requiredClaims: ["exp", "sub"],
    issuer: "https://issuer.test",
    audience: "chat",
    currentDate: new Date(clock.nowMs()),
  };
  let accepted = 0;
  for (let made = 0; made < TOKENS; made += AT_ONCE) {
    const tokens = Array.from({ length: AT_ONCE }, makeToken);
    await Promise.all(
      tokens.map(async (token) => {
        const [ours, theirs] = await Promise.all([
          verify(token),
          jwtVerify(token, TOKEN_SECRET, options).then(
            ({ payload }) => payload,
            () => undefined,
          ),
        ]);
        // The one rule that is stricter on purpose: no tolerance for `exp`.
        const expected = theirs !== undefined && Number(theirs.exp) > nowSeconds;
        if (ours.ok !== expected) throw new Error(`Differs: ${token}`);
        if (ours.ok) accepted++;
      }),
    );
  }
  // Enough of either kind, or the comparison would say nothing.
  expect(accepted).toBeGreaterThan(TOKENS / 10);
  expect(accepted).toBeLessThan((TOKENS * 9) / 10);
}, 60_000);
