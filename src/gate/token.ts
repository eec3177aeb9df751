import type { JWTHeaderParameters } from "jose";
import type { Clock } from "../lib/clock.ts";
import { fromBase64url, isCanonicalBase64url, sha256Hex } from "../lib/encoding.ts";
import type { Log } from "../lib/log.ts";
import { isLine } from "../lib/text.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import { isUserId } from "../wire/ids.ts";
import { type Identity, MAX_SESSION_LENGTH } from "./identity.ts";
import { requireSecret } from "./options.ts";
import { KeysUnavailableError, remoteKeys } from "./jwks.ts";

/** Longest token that is read, in characters. */
export const MAX_TOKEN_LENGTH = 8_192;
/** How far clocks may be apart, in seconds: for `nbf` and `iat`, never for `exp`. */
export const CLOCK_TOLERANCE_SECONDS = 5;
/** An `exp` further away than this is a mistake or an attack: ten years, in milliseconds. */
export const MAX_TOKEN_LIFETIME_MS = 10 * 366 * 86_400_000;

/** The two ways to know an issuer's keys; never both, so that no public key is taken for a secret. */
export type TokenKeys = { readonly secret: Uint8Array } | { readonly jwksUrl: URL };

/** Verifies a compact JWT; `token_invalid` when it is no good, `keys_unavailable` when that can't be said. */
export type TokenVerifier = (
  token: string,
) => Promise<{ readonly ok: true; readonly identity: Identity } | Refusal>;

const SECRET_ALGORITHMS = ["HS256", "HS384", "HS512"];
const JWKS_ALGORITHMS = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519".split(
  " ",
);

/** Accepted `typ` headers (RFC 7519 section 5.1, RFC 9068): other kinds of JWT are no access tokens. */
const ACCEPTED_TYPES = new Set(["jwt", "at+jwt", "application/jwt", "application/at+jwt"]);

/**
 * Verifies access tokens (RFC 7519, RFC 8725) of one issuer: the signature under an allow-list of algorithms
 * that follows from the kind of key, `exp`, `nbf`, `iss` and `aud` when configured, and a string under
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
  const isSymmetric = "secret" in keys;
  const getKey = isSymmetric
    ? secretKeys(keys.secret)
    : remoteKeys({ url: keys.jwksUrl, clock, log });
  const verifyOptions = {
    algorithms: isSymmetric ? SECRET_ALGORITHMS : JWKS_ALGORITHMS,
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    requiredClaims: ["exp", userClaim],
    ...(issuer !== undefined && { issuer }),
    ...(audience !== undefined && { audience }),
  };

  async function verify(token: string): Promise<Record<string, unknown>> {
    // Loaded with the first token, so that starting doesn't wait for it.
    const { jwtVerify } = await import("jose/jwt/verify");
    const options = { ...verifyOptions, currentDate: new Date(clock.nowMs()) };
    try {
      return (await jwtVerify(token, getKey, options)).payload;
    } catch (error) {
      const { JWKSMultipleMatchingKeys } = await import("jose/errors");
      if (!(error instanceof JWKSMultipleMatchingKeys)) throw error;
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
    const isBounded =
      exp * 1000 > nowMs &&
      exp * 1000 - nowMs <= MAX_TOKEN_LIFETIME_MS &&
      iat >= 0 &&
      // Further ahead it would escape revocations.
      iat * 1000 - nowMs <= CLOCK_TOLERANCE_SECONDS * 1000;
    if (!isUserId(id) || !isBounded) return refuse("token_invalid");
    return {
      ok: true,
      identity: {
        kind: "user",
        id,
        session: await sessionOf(payload, token),
        issuedAtMs: Math.floor(iat * 1000),
        toleranceMs: CLOCK_TOLERANCE_SECONDS * 1000,
        expiresAtMs: Math.floor(exp * 1000),
      },
    };
  };
}

/**
 * The name of the sign-in that a token belongs to: its `sid`, else its `jti`, else a hash of what was signed.
 * Never of the signature: an ECDSA signature can be rewritten into another valid one.
 */
async function sessionOf({ sid, jti }: Record<string, unknown>, token: string): Promise<string> {
  const name = sid || jti;
  if (isLine(name, MAX_SESSION_LENGTH)) return name;
  return sha256Hex(name ? JSON.stringify(name) : token.slice(0, token.lastIndexOf(".")));
}

/**
 * What jose leaves open: one spelling only for each token (RFC 7515 section 2: base64url without padding or
 * white space), a bounded size, no critical extensions, and the type of an access token.
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
      const algorithm = { name: "HMAC", hash: `SHA-${alg.slice(2)}` };
      key = crypto.subtle.importKey("raw", new Uint8Array(secret), algorithm, false, ["verify"]);
      imported.set(alg, key);
    }
    return key;
  };
}

/**
 * Signs an HS256 access token for `user`: for demos and tests; real tokens come from your issuer. `secret`
 * has at least 32 bytes; `expiresAtMs` is wall clock, in milliseconds.
 *
 * @example
 * const token = await signToken({ secret, user: "alice", expiresAtMs: Date.now() + 60_000 });
 */
export async function signToken(options: {
  secret: string | Uint8Array;
  user: string;
  expiresAtMs: number;
  claims?: Record<string, unknown>;
}): Promise<string> {
  const { user, expiresAtMs, claims } = options;
  const secret = requireSecret(options.secret, "secret");
  const { SignJWT } = await import("jose/jwt/sign");
  return new SignJWT({ sub: user, ...claims, exp: Math.floor(expiresAtMs / 1000) })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(secret);
}

/** The token in an `Authorization` header (RFC 6750 section 2.1), or why there is none. */
export function readBearer(
  header: string | null,
): { readonly ok: true; readonly token: string } | Refusal {
  if (header === null || !/^bearer(?: |$)/i.test(header)) return refuse("token_missing");
  const token = /^bearer +([\w.~+/-]+=*)$/i.exec(header)?.[1];
  return token ? { ok: true, token } : refuse("malformed_request");
}
