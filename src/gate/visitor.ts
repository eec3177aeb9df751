import type { Clock } from "../lib/clock.ts";
import { toBase64url } from "../lib/encoding.ts";
import { isVisitorId } from "../wire/ids.ts";
import { CLOCK_TOLERANCE_SECONDS } from "./claims.ts";
import { cookieName, cookieValue } from "./cookie.ts";
import { createSigner, type SigningSecrets } from "./hmac.ts";
import type { Identity } from "./identity.ts";

/** How long a visitor is remembered, in seconds: 30 days from the last renewal. */
export const VISITOR_MAX_AGE_SECONDS = 30 * 86_400;

/** Issues and reads the one cookie that identifies a visitor. Keeps no state. The id is public; the MAC is the secret. */
export interface VisitorSessions {
  /** A `Set-Cookie` value (RFC 6265bis) for `id`, or for a new visitor. */
  issue(options: { id?: string | undefined; secure: boolean }): Promise<string>;
  /** The visitor of a `Cookie` header; `undefined` unless it has exactly one cookie of that name, signed with this secret. */
  read(cookieHeader: string | null, options: { secure: boolean }): Promise<Identity | undefined>;
  /** The cookie's name. */
  name(secure: boolean): string;
}

/** Where a visitor writes: on the server's own pages, or in a frame on another site. */
const KINDS = {
  site: { name: "anonSessionId", purpose: "ws-ticket visitor session", sameSite: "SameSite=Lax" },
  // Sent to a frame on another site, and to no other frame: browsers keep one for each site (CHIPS).
  embed: {
    name: "embedSessionId",
    purpose: "ws-ticket embedded visitor session",
    sameSite: "SameSite=None",
  },
} as const;

/** `kind`: each has a cookie and a purpose of its own, so that neither is good for the other. */
export function createVisitorSessions(
  options: SigningSecrets & {
    kind?: keyof typeof KINDS;
    /** The path below which everything is. Default: none. */
    publicPath?: string | undefined;
    clock: Clock;
    randomBytes: (length: number) => Uint8Array;
  },
): VisitorSessions {
  const { kind = "site", publicPath, clock, randomBytes } = options;
  const { name, purpose, sameSite } = KINDS[kind];
  const signer = createSigner(options, purpose);

  function attributes(secure: boolean): string {
    const always = `Path=/; Max-Age=${VISITOR_MAX_AGE_SECONDS}; HttpOnly`;
    // Without https there are no cookies for frames on other sites; on the same site this one works.
    if (!secure) return `${always}; SameSite=Lax`;
    return `${always}; ${sameSite}; Secure${kind === "embed" ? "; Partitioned" : ""}`;
  }

  return {
    name: (secure) => cookieName(name, secure, publicPath),

    async issue({ id = toBase64url(randomBytes(16)), secure }) {
      const issuedAtSeconds = Math.floor(clock.nowMs() / 1000);
      const mac = await signer.mac(`v1|${id}|${issuedAtSeconds}`);
      const value = `v1.${id}.${issuedAtSeconds}.${mac}`;
      return `${cookieName(name, secure, publicPath)}=${value}; ${attributes(secure)}`;
    },

    async read(cookieHeader, { secure }) {
      const value = cookieValue(cookieHeader, cookieName(name, secure, publicPath));
      if (value === undefined) return undefined;
      const [version, id, issuedAt = "", mac = "", ...rest] = value.split(".");
      if (version !== "v1" || !isVisitorId(id) || rest.length > 0) return undefined;
      if (!/^[1-9]\d{0,11}$/.test(issuedAt)) return undefined;
      const issuedAtSeconds = Number(issuedAt);
      const ageSeconds = clock.nowMs() / 1000 - issuedAtSeconds;
      if (ageSeconds < -CLOCK_TOLERANCE_SECONDS || ageSeconds >= VISITOR_MAX_AGE_SECONDS) {
        return undefined;
      }
      if (!(await signer.isGenuine(`v1|${id}|${issuedAt}`, mac))) return undefined;
      const issuedAtMs = issuedAtSeconds * 1000;
      const expiresAtMs = issuedAtMs + VISITOR_MAX_AGE_SECONDS * 1000;
      const toleranceMs = CLOCK_TOLERANCE_SECONDS * 1000;
      return { kind: "visitor", id, issuedAtMs, toleranceMs, expiresAtMs };
    },
  };
}
