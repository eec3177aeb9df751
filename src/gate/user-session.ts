import type { Clock } from "../lib/clock.ts";
import { fromBase64url, toBase64url, utf8 } from "../lib/encoding.ts";
import { isLine } from "../lib/text.ts";
import { isUserId } from "../wire/ids.ts";
import { cookieName, cookieValue } from "./cookie.ts";
import { createSigner, type SigningSecrets } from "./hmac.ts";
import { type Identity, MAX_SESSION_LENGTH } from "./identity.ts";

const NAME = "inboxSession";
const PURPOSE = "ws-ticket inbox session";
/** Never sent with a request that another site has caused. */
const ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict";

/**
 * Issues and reads the cookie that stands for a user's JWT on the server's own pages. Keeps no state: it says
 * whose it is, of which session, and when the JWT was issued and ends, and so it ends with the JWT, or with its
 * revocation.
 */
export interface UserSessions {
  /** A `Set-Cookie` value (RFC 6265bis); `undefined` for an identity with less than a second left. */
  issue(identity: Identity, options: { secure: boolean }): Promise<string | undefined>;
  /** The user of a `Cookie` header; `undefined` unless it has exactly one cookie of that name, signed with this secret. */
  read(cookieHeader: string | null, options: { secure: boolean }): Promise<Identity | undefined>;
  /** A `Set-Cookie` value that removes it. */
  clear(options: { secure: boolean }): string;
}

export function createUserSessions(
  options: SigningSecrets & {
    /** The path below which everything is. Default: none. */
    publicPath?: string | undefined;
    clock: Clock;
  },
): UserSessions {
  const { publicPath, clock } = options;
  const signer = createSigner(options, PURPOSE);

  function cookie(value: string, maxAgeSeconds: number, secure: boolean): string {
    const attributes = `${ATTRIBUTES}; Max-Age=${maxAgeSeconds}${secure ? "; Secure" : ""}`;
    return `${cookieName(NAME, secure, publicPath)}=${value}; ${attributes}`;
  }

  return {
    async issue({ id, session, issuedAtMs, toleranceMs, expiresAtMs }, { secure }) {
      const maxAgeSeconds = Math.floor((expiresAtMs - clock.nowMs()) / 1000);
      if (maxAgeSeconds < 1) return undefined;
      const fields = [id, session ?? null, issuedAtMs, toleranceMs ?? 0, expiresAtMs];
      const payload = toBase64url(utf8(JSON.stringify(fields)));
      return cookie(`v1.${payload}.${await signer.mac(`v1|${payload}`)}`, maxAgeSeconds, secure);
    },

    async read(cookieHeader, { secure }) {
      const value = cookieValue(cookieHeader, cookieName(NAME, secure, publicPath));
      if (value === undefined) return undefined;
      const [version, payload = "", mac = "", ...rest] = value.split(".");
      if (version !== "v1" || rest.length > 0) return undefined;
      if (!(await signer.isGenuine(`v1|${payload}`, mac))) return undefined;
      const identity = parse(payload);
      return identity && identity.expiresAtMs > clock.nowMs() ? identity : undefined;
    },

    clear: ({ secure }) => cookie("", 0, secure),
  };
}

/** What was signed; `undefined` for what another version has signed. */
function parse(payload: string): Identity | undefined {
  const bytes = fromBase64url(payload);
  const fields: unknown = bytes && JSON.parse(new TextDecoder().decode(bytes));
  if (!Array.isArray(fields) || fields.length !== 5) return undefined;
  const [id, session, ...times] = fields as unknown[];
  if (!isUserId(id) || !times.every(Number.isSafeInteger)) return undefined;
  if (session !== null && !isLine(session, MAX_SESSION_LENGTH)) return undefined;
  const [issuedAtMs, toleranceMs, expiresAtMs] = times as [number, number, number];
  const own = session === null ? {} : { session: session as string };
  return { kind: "user", id, ...own, issuedAtMs, toleranceMs, expiresAtMs };
}
