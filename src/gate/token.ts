import type { CryptoKey } from "jose";
import type { Clock } from "../lib/clock.ts";
import { fromBase64url, isCanonicalBase64url, sha256Hex } from "../lib/encoding.ts";
import { parseJson } from "../lib/json.ts";
import type { Log } from "../lib/log.ts";
import { createRecentMap } from "../lib/recent.ts";
import {
  type Refusal,
  refuse,
  refuseFor,
  refuseToken,
  type TokenFault,
} from "../request/refusal.ts";
import { readClaims } from "./claims.ts";
import type { Profile } from "./identity.ts";
import { createHmac, isSameText, SECRET_ALGORITHMS } from "./hmac.ts";
import {
  type FindKey,
  type KeyHeader,
  type KeySet,
  KeysUnavailableError,
  localKeys,
  remoteKeys,
} from "./jwks.ts";
import { requireSecret } from "./options.ts";
import type { Identified } from "./ticket.ts";

/** Longest token that is read, in characters. */
export const MAX_TOKEN_LENGTH = 8_192;
/** How long a good token is remembered, in milliseconds, and how many at the least. */
const REMEMBERED_MS = 3_600_000;
const REMEMBERED_AT_LEAST = 20_000;
/** Headers of tokens that are remembered: an issuer's tokens have one per key. */
const MAX_HEADERS = 32;

/** The ways to know an issuer's keys; one of them alone, so that no public key is taken for a secret. */
export type TokenKeys =
  | {
      readonly secret: Uint8Array<ArrayBuffer>;
      /** Verifies what was signed before the secret was changed. */
      readonly previousSecret?: Uint8Array<ArrayBuffer> | undefined;
    }
  | { readonly jwksUrl: URL; readonly allowHttp?: boolean | undefined }
  | { readonly publicKeys: KeySet };

/**
 * Verifies a compact JWT; `token_invalid` when it is no good, `keys_unavailable` when that can't be said (with a fault
 * where the key is unknown). `waitMs` is called before what takes long, the first look at a signature with a public
 * key: milliseconds that the sender has to wait, after which the token is refused with `too_many_requests`.
 */
export type TokenVerifier = (
  token: string,
  waitMs?: () => number,
) => Promise<ProvedByToken | Refusal>;

/** The user of a token, and what it says of them to others. */
export interface ProvedByToken extends Identified {
  readonly profile: Profile;
}

const JWKS_ALGORITHMS = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519".split(
  " ",
);

/** Accepted `typ` headers (RFC 7519 section 5.1, RFC 9068): other kinds of JWT are no access tokens. */
const ACCEPTED_TYPES = new Set(["jwt", "at+jwt", "application/jwt", "application/at+jwt"]);

/** What a token's header says, or what is wrong with it. */
type Header = KeyHeader | TokenFault;

/** What is wrong with a signature, if anything; or the milliseconds to wait before it is looked at. */
type SignatureFault = TokenFault | number | undefined;

/** Checks the signature over `signed`, the header and payload in base64url. */
type CheckSignature = (
  header: KeyHeader,
  signed: string,
  signature: string,
  waitMs: () => number,
) => SignatureFault | Promise<SignatureFault>;

/**
 * Verifies access tokens (RFC 7519, RFC 8725) of one issuer: the signature under an allow-list of algorithms
 * that follows from the kind of key, `exp`, `nbf`, `iss` and `aud` when configured, and a string under
 * `userClaim`, which becomes the user's id.
 */
export function createTokenVerifier(options: {
  keys: TokenKeys;
  issuer?: string | undefined;
  audience?: string | readonly string[] | undefined;
  userClaim?: string | undefined;
  clock: Clock;
  log: Log;
}): TokenVerifier {
  const { keys, issuer, audience, userClaim = "sub", clock, log } = options;
  const rules = {
    issuer,
    audience: typeof audience === "string" ? [audience] : audience,
    userClaim,
  };
  const isSymmetric = "secret" in keys;
  const algorithms = isSymmetric ? SECRET_ALGORITHMS : JWKS_ALGORITHMS;
  const checkSignature = isSymmetric
    ? checkWithSecret(keys.secret, keys.previousSecret)
    : checkWithKeys(
        "publicKeys" in keys
          ? localKeys(keys.publicKeys)
          : remoteKeys({ url: keys.jwksUrl, clock, log }),
        clock,
      );
  const headers = new Map<string, Header>();

  /** An issuer's tokens all have the same header: it is parsed once. */
  function headerOf(segment: string): Header {
    const known = headers.get(segment);
    if (known) return known;
    const header = readHeader(segment, algorithms);
    if (headers.size >= MAX_HEADERS) headers.clear();
    headers.set(segment, header);
    return header;
  }

  return async (token, waitMs = () => 0) => {
    const parts = token.length <= MAX_TOKEN_LENGTH ? token.split(".") : [];
    const [header, payload, signature] = parts;
    if (parts.length !== 3 || !header || !payload || !signature) return refuseToken("not_a_jwt");
    const parsed = headerOf(header);
    if (typeof parsed === "string") return refuseToken(parsed);
    if (!isCanonicalBase64url(payload) || !isCanonicalBase64url(signature)) {
      return refuseToken("not_a_jwt");
    }
    const signed = token.slice(0, -signature.length - 1);
    try {
      const checked = checkSignature(parsed, signed, signature, waitMs);
      // Not instanceof: a promise of the runtime's need not be of a Promise that was replaced.
      const fault = typeof checked === "object" ? await checked : checked;
      if (typeof fault === "number") return refuseFor(fault);
      if (fault) return refuseToken(fault);
    } catch (error) {
      if (!(error instanceof KeysUnavailableError)) throw error;
      const refusal = refuse("keys_unavailable");
      return error.isKeyUnknown ? { ...refusal, fault: "key_unknown" } : refusal;
    }
    const read = readClaims(signed, rules, clock.nowMs());
    const claims = typeof read === "object" ? await read : read;
    return typeof claims === "string" ? refuseToken(claims) : { ok: true, ...claims };
  };
}

/**
 * Reads a header: canonical base64url of a JSON object with an allowed algorithm, no critical extensions, and
 * the type of an access token.
 */
function readHeader(segment: string, algorithms: readonly string[]): Header {
  let header: unknown;
  try {
    const bytes = fromBase64url(segment);
    header = bytes && parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return "not_a_jwt";
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) return "not_a_jwt";
  const own = (name: string): unknown =>
    Object.hasOwn(header, name) ? (header as Record<string, unknown>)[name] : undefined;
  const [alg, typ, kid] = [own("alg"), own("typ"), own("kid")];
  if (own("crit") !== undefined || own("b64") !== undefined) return "not_a_jwt";
  const isAccessToken =
    typ === undefined || (typeof typ === "string" && ACCEPTED_TYPES.has(typ.toLowerCase()));
  if (!isAccessToken) return "type";
  if (typeof alg !== "string" || !algorithms.includes(alg)) return "algorithm";
  // What is no string names no key: it is left to whoever looks for one.
  return kid === undefined ? { alg } : { alg, kid: kid as string };
}

function checkWithSecret(
  secret: Uint8Array<ArrayBuffer>,
  previous?: Uint8Array<ArrayBuffer>,
): CheckSignature {
  const hmac = createHmac(secret);
  const checkPrevious = previous && checkWithSecret(previous);
  return (header, signed, signature, waitMs) => {
    const compare = (expected: string) => {
      if (isSameText(expected, signature)) return undefined;
      return checkPrevious ? checkPrevious(header, signed, signature, waitMs) : "signature";
    };
    const expected = hmac(header.alg, signed);
    return typeof expected === "string" ? compare(expected) : expected.then(compare);
  };
}

/** Loaded with the first token, so that starting doesn't wait for it. */
let verifying: Promise<typeof import("jose/jws/compact/verify")> | undefined;
let errors: Promise<typeof import("jose/errors")> | undefined;

function checkWithKeys(findKey: FindKey, clock: Clock): CheckSignature {
  /** The keys of good tokens, by the token's hash: there is no second look at a signature. */
  const good = createRecentMap<string, CryptoKey>({
    keepMs: REMEMBERED_MS,
    atLeast: REMEMBERED_AT_LEAST,
    clock,
  });

  async function isSignedBy(key: CryptoKey, token: string): Promise<boolean> {
    const { compactVerify } = await (verifying ??= import("jose/jws/compact/verify"));
    try {
      await compactVerify(token, key, { algorithms: [...JWKS_ALGORITHMS] });
      return true;
    } catch {
      return false;
    }
  }

  return async (header, signed, signature, waitMs) => {
    const token = `${signed}.${signature}`;
    const hash = await sha256Hex(token);
    const known = good.get(hash);
    const wait = known ? 0 : waitMs();
    if (wait > 0) return wait;
    try {
      for await (const key of keysFor(header, findKey)) {
        if (key !== known && !(await isSignedBy(key, token))) continue;
        good.set(hash, key);
        return undefined;
      }
      return "signature";
    } catch (error) {
      if (error instanceof KeysUnavailableError) throw error;
      const { JWKSNoMatchingKey } = await (errors ??= import("jose/errors"));
      return error instanceof JWKSNoMatchingKey ? "key_unknown" : "signature";
    }
  };
}

/** Keys that may be a token's: those that share a `kid`, or have none, are all tried. */
async function* keysFor(header: KeyHeader, findKey: FindKey): AsyncGenerator<CryptoKey> {
  try {
    yield await findKey(header);
  } catch (error) {
    const { JWKSMultipleMatchingKeys } = await (errors ??= import("jose/errors"));
    if (!(error instanceof JWKSMultipleMatchingKeys)) throw error;
    yield* error;
  }
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
