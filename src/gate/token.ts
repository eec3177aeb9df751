import type { JSONWebKeySet, JWTHeaderParameters, JWTVerifyGetKey } from "jose";
import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fromBase64url, isCanonicalBase64url, sha256Hex } from "../lib/encoding.ts";
import { fetchJson } from "../lib/fetch.ts";
import { faultCode, type Log } from "../lib/log.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import { isLine } from "../lib/text.ts";

/** Loaded at the first token: until then nobody waits for it. */
let loading: Promise<typeof import("jose")> | undefined;
function jose(): Promise<typeof import("jose")> {
  return (loading ??= import("jose"));
}

/** Longest token that is looked at, in characters. */
export const MAX_TOKEN_LENGTH = 8_192;
/** How far clocks may be apart, in seconds. */
export const CLOCK_TOLERANCE_SECONDS = 5;
/** Longest user id, in characters. */
export const MAX_USER_ID_LENGTH = 255;
/** An `exp` further away than this is a mistake or an attack: ten years, in milliseconds. */
export const MAX_TOKEN_LIFETIME_MS = 10 * 366 * 86_400_000;

/** The two ways to know an issuer's keys; never both, so that no public key is taken for a secret. */
export type TokenKeys = { readonly secret: Uint8Array } | { readonly jwksUrl: URL };

/** Who a verified token speaks for. */
export interface TokenUser {
  readonly id: string;
  /** Names the sign-in that the token belongs to: a hash over the user and `sid`, else `jti`, else the token itself. */
  readonly session: string;
  /** The token's `iat`, wall clock in milliseconds; 0 without. */
  readonly issuedAtMs: number;
  /** The token's `exp`, wall clock in milliseconds. */
  readonly tokenExpiresAtMs: number;
}

/** Turns a compact JWT into its user; `token_invalid` when it doesn't verify, `keys_unavailable` when nobody can tell. */
export type TokenVerifier = (
  token: string,
) => Promise<{ readonly ok: true; readonly user: TokenUser } | Refusal>;

const SECRET_ALGORITHMS = ["HS256", "HS384", "HS512"];
const JWKS_ALGORITHMS = [
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  ...["ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
];

/** Accepted `typ` headers (RFC 7519 section 5.1, RFC 9068): other kinds of JWT are no access tokens. */
const ACCEPTED_TYPES = new Set(["jwt", "at+jwt", "application/jwt", "application/at+jwt"]);

/**
 * Verifies access tokens (RFC 7519, RFC 8725) of one issuer: signature under an allow-list of algorithms
 * that follows from the kind of key, `exp`, `nbf`, `issuer` and `audience` when given, and a string under
 * `userClaim`, which becomes the user's id.
 */
export function createTokenVerifier(options: {
  keys: TokenKeys;
  issuer?: string | undefined;
  audience?: string | undefined;
  userClaim?: string | undefined;
  clock: Clock;
  log: Log;
}): TokenVerifier {
  const { keys, issuer, audience, userClaim = "sub", clock, log } = options;
  const symmetric = "secret" in keys;
  const getKey = symmetric ? secretKeys(keys.secret) : remoteKeys(keys.jwksUrl, clock, log);
  const verifyOptions = {
    algorithms: symmetric ? SECRET_ALGORITHMS : JWKS_ALGORITHMS,
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    requiredClaims: ["exp", userClaim],
    ...(issuer !== undefined && { issuer }),
    ...(audience !== undefined && { audience }),
  };

  async function verify(token: string): Promise<Record<string, unknown>> {
    const { errors, jwtVerify } = await jose();
    const options = { ...verifyOptions, currentDate: new Date(clock.nowMs()) };
    try {
      return (await jwtVerify(token, getKey, options)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
      // Keys that share a `kid`, or have none: any of them may be the one.
      for await (const key of error) {
        const payload = await jwtVerify(token, key, options).then(
          (verified) => verified.payload,
          () => undefined,
        );
        if (payload) return payload;
      }
      throw error;
    }
  }

  return async (token) => {
    if (!isAcceptableToken(token)) return refuse("token_invalid");
    let payload: Record<string, unknown>;
    try {
      payload = await verify(token);
    } catch (error) {
      return refuse(error instanceof KeysUnavailableError ? "keys_unavailable" : "token_invalid");
    }
    const id = Object.hasOwn(payload, userClaim) ? payload[userClaim] : undefined;
    const { exp, iat = 0 } = payload as { exp: number; iat?: number };
    const nowMs = clock.nowMs();
    // Issued in the future it would escape every sign-out until then.
    const bounded =
      exp * 1000 - nowMs <= MAX_TOKEN_LIFETIME_MS &&
      iat >= 0 &&
      iat * 1000 - nowMs <= CLOCK_TOLERANCE_SECONDS * 1000;
    if (!isUserId(id) || !bounded) return refuse("token_invalid");
    const { sid, jti } = payload;
    const sessionParts = [id, ...(sid ? ["sid", sid] : jti ? ["jti", jti] : ["token", token])];
    return {
      ok: true,
      user: {
        id,
        session: await sha256Hex(JSON.stringify(sessionParts)),
        issuedAtMs: Math.floor(iat * 1000),
        tokenExpiresAtMs: Math.floor(exp * 1000),
      },
    };
  };
}

/** Whether a value can be a user's id: 1 to 255 well-formed characters, none of them a control character. */
export function isUserId(value: unknown): value is string {
  return isLine(value, MAX_USER_ID_LENGTH);
}

/**
 * What jose leaves open: one spelling only for each token (RFC 7515 section 2: base64url without padding
 * or white space), a bounded size, no critical extensions, and a type that is an access token's.
 */
function isAcceptableToken(token: string): boolean {
  if (token.length > MAX_TOKEN_LENGTH) return false;
  const parts = token.split(".");
  if (parts.length !== 3 || !parts.every((part) => part !== "" && isCanonicalBase64url(part))) {
    return false;
  }
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(fromBase64url(parts[0] as string)));
  } catch {
    return false;
  }
  if (typeof header !== "object" || header === null) return false;
  const { typ, crit, b64 } = header as Record<string, unknown>;
  if (crit !== undefined || b64 !== undefined) return false;
  return typ === undefined || (typeof typ === "string" && ACCEPTED_TYPES.has(typ.toLowerCase()));
}

/** One imported key per algorithm, made at its first use. */
function secretKeys(secret: Uint8Array): (header: JWTHeaderParameters) => Promise<CryptoKey> {
  const imported = new Map<string, Promise<CryptoKey>>();
  return ({ alg }) => {
    let key = imported.get(alg);
    if (!key) {
      const hash = `SHA-${alg.slice(2)}`;
      key = crypto.subtle.importKey("raw", new Uint8Array(secret), { name: "HMAC", hash }, false, [
        "verify",
      ]);
      imported.set(alg, key);
    }
    return key;
  };
}

/** The key server can't be asked, and what it said before doesn't settle the matter. */
class KeysUnavailableError extends Error {
  override name = "KeysUnavailableError";
}

/** Keys are asked for again after this time, in milliseconds. */
const KEYS_FRESH_MS = 600_000;
/** A `kid` that isn't known makes for one more request, at most every so often. */
const KEYS_COOLDOWN_MS = 30_000;
/** After a failure the key server is left alone for so long. */
const KEYS_RETRY_MS = 5_000;
/** While the key server is away, its last keys serve for so long. */
const KEYS_STALE_MS = 3_600_000;
/** Longest key set that is read, in bytes. */
const MAX_KEYS_BYTES = 256 * 1024;

/**
 * Keys of a JWKS (RFC 7517) at `url`. Requests are shared; a failure is remembered, so that an outage
 * costs the key server one request per `KEYS_RETRY_MS` and not one per token.
 */
function remoteKeys(url: URL, clock: Clock, log: Log): JWTVerifyGetKey {
  let known: { find: JWTVerifyGetKey; atMs: number } | undefined;
  let failedAtMs = Number.NEGATIVE_INFINITY;
  let asking: Promise<void> | undefined;

  async function ask(): Promise<void> {
    const startedAtMs = clock.monotonicMs();
    try {
      const answer = await fetchJson(url, {
        headers: { Accept: "application/jwk-set+json, application/json" },
        deadlineMs: DEPENDENCY_DEADLINE_MS,
        maxBytes: MAX_KEYS_BYTES,
      });
      if (answer.status !== 200) throw new KeysUnavailableError();
      const { createLocalJWKSet } = await jose();
      known = { find: createLocalJWKSet(answer.body as JSONWebKeySet), atMs: clock.monotonicMs() };
      failedAtMs = Number.NEGATIVE_INFINITY;
    } catch (error) {
      failedAtMs = clock.monotonicMs();
      const durationMs = Math.round(failedAtMs - startedAtMs);
      log("error", "keys_unavailable", { code: faultCode(error), durationMs });
    } finally {
      asking = undefined;
    }
  }

  function ageMs(): number {
    return known ? clock.monotonicMs() - known.atMs : Number.POSITIVE_INFINITY;
  }

  /** Makes the keys no older than `maxAgeMs`, unless the key server failed just now. */
  async function refresh(maxAgeMs: number): Promise<void> {
    if (ageMs() < maxAgeMs || clock.monotonicMs() - failedAtMs < KEYS_RETRY_MS) return;
    asking ??= ask();
    await asking;
  }

  return async (header, token) => {
    await refresh(KEYS_FRESH_MS);
    if (!known || ageMs() >= KEYS_STALE_MS) throw new KeysUnavailableError();
    try {
      return await known.find(header, token);
    } catch (error) {
      const { errors } = await jose();
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      await refresh(KEYS_COOLDOWN_MS);
      // An unknown key and a key server that is away: it may well be a new key.
      if (failedAtMs !== Number.NEGATIVE_INFINITY) throw new KeysUnavailableError();
      return known.find(header, token);
    }
  };
}

/** Signs an HS256 access token for `user`: for the demo and for tests; real tokens come from your issuer. */
export async function signToken(options: {
  secret: Uint8Array;
  user: string;
  expiresAtMs: number;
  claims?: Record<string, unknown>;
}): Promise<string> {
  const { secret, user, expiresAtMs, claims } = options;
  const { SignJWT } = await jose();
  return new SignJWT({ sub: user, ...claims, exp: Math.floor(expiresAtMs / 1000) })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(secret);
}

/** What an `Authorization` header (RFC 6750 section 2.1) carries: the token, or why there is none. */
export function readBearer(
  header: string | null,
): { readonly ok: true; readonly token: string } | Refusal {
  if (header === null || !/^bearer(?: |$)/i.test(header)) return refuse("token_missing");
  const token = /^bearer +([\w.~+/-]+=*)$/i.exec(header)?.[1];
  return token ? { ok: true, token } : refuse("malformed_request");
}
