import { fromBase64url, sha256Hex } from "../lib/encoding.ts";
import { isLine, isLines } from "../lib/text.ts";
import type { TokenFault } from "../request/refusal.ts";
import { isUserId } from "../wire/ids.ts";
import { type Identity, MAX_SESSION_LENGTH, type Profile } from "./identity.ts";

/** How far clocks may be apart, in seconds: for `nbf` and `iat`, never for `exp`. */
export const CLOCK_TOLERANCE_SECONDS = 5;
/** An `exp` further away than this is a mistake or an attack: ten years, in milliseconds. */
export const MAX_TOKEN_LIFETIME_MS = 10 * 366 * 86_400_000;

/** What is required of a token's claims. */
export interface ClaimRules {
  readonly issuer: string | undefined;
  /** Any of these. */
  readonly audience: readonly string[] | undefined;
  readonly userClaim: string;
}

/** Longest name and greeting, in UTF-16 code units; longer ones are left out. */
const MAX_NAME_LENGTH = 100;
const MAX_GREETING_LENGTH = 500;

/** What a token's claims say. */
export interface ReadClaims {
  readonly identity: Identity;
  readonly profile: Profile;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The user and profile of a token whose signature was verified (RFC 7519 section 7.2), or what is wrong with its claims.
 * `signed` is what the signature covers: header and payload in base64url.
 */
export function readClaims(
  signed: string,
  rules: ClaimRules,
  nowMs: number,
): ReadClaims | TokenFault | Promise<ReadClaims> {
  const claims = parsePayload(signed.slice(signed.indexOf(".") + 1));
  if (!claims) return "not_a_jwt";
  const own = (name: string): unknown => (Object.hasOwn(claims, name) ? claims[name] : undefined);

  const { issuer, audience, userClaim } = rules;
  if (issuer !== undefined && own("iss") !== issuer) return "issuer";
  if (audience !== undefined && !isFor(own("aud"), audience)) return "audience";
  const [exp, nbf, iat] = [own("exp"), own("nbf"), own("iat")];
  if (typeof exp !== "number" || !isNumberOrAbsent(nbf) || !isNumberOrAbsent(iat)) return "claim";
  const toleranceMs = CLOCK_TOLERANCE_SECONDS * 1000;
  if (nbf !== undefined && nbf * 1000 > nowMs + toleranceMs) return "not_yet_valid";
  if (exp * 1000 <= nowMs) return "expired";
  if (exp * 1000 - nowMs > MAX_TOKEN_LIFETIME_MS) return "claim";
  // Further ahead it would escape revocations.
  if (iat !== undefined && (iat < 0 || iat * 1000 > nowMs + toleranceMs)) return "claim";
  const id = own(userClaim);
  if (!isUserId(id)) return "claim";
  // An address that nobody has confirmed may be anybody's. Some issuers write it as text.
  const isUnconfirmed = [false, "false"].includes(own("email_verified") as boolean | string);
  if (userClaim === "email" && isUnconfirmed) return "claim";

  const identity = {
    kind: "user",
    id,
    issuedAtMs: Math.floor((iat ?? 0) * 1000),
    toleranceMs,
    expiresAtMs: Math.floor(exp * 1000),
  } as const;
  const session = sessionOf(own("sid") || own("jti"), signed);
  const profile = profileOf(own("name"), own("greeting"));
  return typeof session === "string"
    ? { identity: { ...identity, session }, profile }
    : session.then((hash) => ({ identity: { ...identity, session: hash }, profile }));
}

/** A payload as its claims; `undefined` for anything but a JSON object in canonical base64url and valid UTF-8. */
function parsePayload(payload: string): Record<string, unknown> | undefined {
  try {
    const bytes = fromBase64url(payload);
    const claims: unknown = bytes && JSON.parse(strictUtf8.decode(bytes));
    const isObject = typeof claims === "object" && claims !== null && !Array.isArray(claims);
    return isObject ? (claims as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A picture isn't taken: to show it, every visitor's browser would have to call a host of the issuer's choice. */
function profileOf(name: unknown, greeting: unknown): Profile {
  return {
    ...(isLine(name, MAX_NAME_LENGTH) && name.trim() !== "" && { name: name.trim() }),
    ...(isLines(greeting, MAX_GREETING_LENGTH) && { greeting: greeting.trim() }),
  };
}

function isFor(aud: unknown, audience: readonly string[]): boolean {
  const values: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  return audience.some((one) => values.includes(one));
}

function isNumberOrAbsent(value: unknown): value is number | undefined {
  return value === undefined || typeof value === "number";
}

/**
 * The name of the sign-in that a token belongs to: its `sid`, else its `jti`, else a hash of what was signed.
 * Never of the signature: an ECDSA signature can be rewritten into another valid one.
 */
function sessionOf(name: unknown, signed: string): string | Promise<string> {
  if (isLine(name, MAX_SESSION_LENGTH)) return name;
  return sha256Hex(name ? JSON.stringify(name) : signed);
}
