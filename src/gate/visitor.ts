import type { Clock } from "../lib/clock.ts";
import { fromBase64url, toBase64url, utf8 } from "../lib/encoding.ts";
import { isVisitorId } from "../wire/ids.ts";
import type { Identity } from "./identity.ts";
import { CLOCK_TOLERANCE_SECONDS } from "./claims.ts";

/** How long a visitor is remembered, in seconds: 30 days from the last renewal. */
export const VISITOR_MAX_AGE_SECONDS = 30 * 86_400;

/** The key is derived for it and every MAC covers it, so that no other signature is valid here. */
const PURPOSE = "ws-ticket visitor session";

/** Issues and reads the one cookie that identifies a visitor. Keeps no state. The id is public; the MAC is the secret. */
export interface VisitorSessions {
  /** A `Set-Cookie` value (RFC 6265bis) for `id`, or for a new visitor. */
  issue(options: { id?: string | undefined; secure: boolean }): Promise<string>;
  /** The visitor of a `Cookie` header; `undefined` unless it has exactly one cookie of that name, signed with this secret. */
  read(cookieHeader: string | null, options: { secure: boolean }): Promise<Identity | undefined>;
}

/**
 * Name of the cookie; over https with the prefix that ties it to exactly this host. With that prefix a cookie's path
 * is `/`, so that servers with paths of their own (`basePath`) on one host get cookies of different names.
 */
export function visitorCookieName(secure: boolean, basePath = ""): string {
  return `${secure ? "__Host-" : ""}anonSessionId${basePath.replaceAll("/", ".")}`;
}

export function createVisitorSessions(options: {
  secret: Uint8Array;
  /** Verifies what was signed before the secret was changed; nothing is signed with it. */
  previousSecret?: Uint8Array | undefined;
  clock: Clock;
  randomBytes: (length: number) => Uint8Array;
  /** The path below which everything is. Default: none. */
  basePath?: string | undefined;
}): VisitorSessions {
  const { secret, previousSecret, clock, randomBytes, basePath = "" } = options;
  const keyPromise = deriveKey(secret);
  const previousPromise = previousSecret && deriveKey(previousSecret);

  async function isGenuine(mac: Uint8Array<ArrayBuffer>, text: Uint8Array<ArrayBuffer>) {
    for (const key of [await keyPromise, await previousPromise]) {
      if (key && (await crypto.subtle.verify("HMAC", key, mac, text))) return true;
    }
    return false;
  }

  return {
    async issue({ id = toBase64url(randomBytes(16)), secure }) {
      const issuedAtSeconds = Math.floor(clock.nowMs() / 1000);
      const mac = await crypto.subtle.sign("HMAC", await keyPromise, signed(id, issuedAtSeconds));
      const value = `v1.${id}.${issuedAtSeconds}.${toBase64url(new Uint8Array(mac))}`;
      const attributes = `Path=/; Max-Age=${VISITOR_MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax`;
      return `${visitorCookieName(secure, basePath)}=${value}; ${attributes}${secure ? "; Secure" : ""}`;
    },

    async read(cookieHeader, { secure }) {
      const values = cookieValues(cookieHeader, visitorCookieName(secure, basePath));
      // With two of them there is no way to tell which one an attacker has set (RFC 6265bis section 4.2.2).
      if (values.length !== 1) return undefined;
      const [version, id, issuedAt = "", mac = "", ...rest] = (values[0] as string).split(".");
      const macBytes = fromBase64url(mac);
      if (version !== "v1" || !isVisitorId(id) || rest.length > 0) return undefined;
      if (!/^[1-9]\d{0,11}$/.test(issuedAt) || macBytes?.length !== 32) return undefined;
      const issuedAtSeconds = Number(issuedAt);
      const ageSeconds = clock.nowMs() / 1000 - issuedAtSeconds;
      if (ageSeconds < -CLOCK_TOLERANCE_SECONDS || ageSeconds >= VISITOR_MAX_AGE_SECONDS) {
        return undefined;
      }
      if (!(await isGenuine(macBytes, signed(id, issuedAtSeconds)))) return undefined;
      const issuedAtMs = issuedAtSeconds * 1000;
      const expiresAtMs = issuedAtMs + VISITOR_MAX_AGE_SECONDS * 1000;
      const toleranceMs = CLOCK_TOLERANCE_SECONDS * 1000;
      return { kind: "visitor", id, issuedAtMs, toleranceMs, expiresAtMs };
    },
  };
}

function signed(id: string, issuedAtSeconds: number): Uint8Array<ArrayBuffer> {
  return utf8(`${PURPOSE}|v1|${id}|${issuedAtSeconds}`);
}

/** HKDF (RFC 5869): a key for this purpose alone, whatever else the secret is used for. */
async function deriveKey(secret: Uint8Array): Promise<CryptoKey> {
  const root = await crypto.subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, [
    "deriveKey",
  ]);
  return crypto.subtle.deriveKey(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: utf8(PURPOSE) },
    root,
    { name: "HMAC", hash: "SHA-256", length: 256 },
    false,
    ["sign", "verify"],
  );
}

/** All values of the cookies with exactly this name. Only space and tab are trimmed; other white space is part of a name. */
function cookieValues(header: string | null, name: string): string[] {
  return (header ?? "").split(";").flatMap((pair) => {
    const trimmed = trimBlanks(pair);
    return trimmed.startsWith(`${name}=`) ? [trimmed.slice(name.length + 1)] : [];
  });
}

/** Not a regular expression: on long runs of blanks those take quadratic time. */
function trimBlanks(text: string): string {
  const isBlank = (index: number) => text[index] === " " || text[index] === "\t";
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(start)) start++;
  while (end > start && isBlank(end - 1)) end--;
  return text.slice(start, end);
}
