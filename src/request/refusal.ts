import { RESPONSE_HEADERS } from "./headers.ts";

/** The closed table of refusals: status and detail of each code. */
export const REFUSALS = {
  malformed_request: [
    400,
    "The request can't be parsed, or carries two values where one is allowed",
  ],
  handshake_invalid: [400, "The WebSocket handshake is not valid"],
  credential_in_url: [400, "The URL must not contain credentials other than a ticket"],
  token_missing: [401, "A bearer token is required"],
  token_invalid: [401, "The bearer token is not valid"],
  ticket_refused: [401, "The ticket is not valid"],
  session_refused: [401, "A ticket or a session is required"],
  origin_refused: [403, "This origin is not allowed"],
  not_found: [404, "There is nothing here"],
  method_not_allowed: [405, "This method is not allowed here"],
  body_too_large: [413, "The body is too large"],
  upgrade_required: [426, "This address accepts WebSocket handshakes, version 13, only"],
  too_many_requests: [429, "Too many requests"],
  internal_error: [500, "The server failed"],
  store_unavailable: [503, "The store is unavailable"],
  keys_unavailable: [503, "The keys that verify tokens are unavailable"],
  shutting_down: [503, "The server is shutting down"],
} as const satisfies Record<string, readonly [status: number, detail: string]>;

/** What can be wrong with a bearer token. */
export type TokenFault =
  | "not_a_jwt"
  | "type"
  | "algorithm"
  | "key_unknown"
  | "signature"
  | "claim"
  | "issuer"
  | "audience"
  | "expired"
  | "not_yet_valid"
  | "revoked";

/** Why a request was refused. */
export type RefusalCode = keyof typeof REFUSALS;

/** Why a request was refused: a value, never thrown. `headers` are what this refusal needs beside its body. */
export interface Refusal {
  /** Distinguishes a refusal from a success. */
  readonly ok: false;
  /** Out of the closed table. */
  readonly code: RefusalCode;
  /** For the log alone: responses are the same for all. */
  readonly fault?: TokenFault;
  /** Beside those that every response has. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Headers that a refusal always has. RFC 9110 requires a challenge with 401 and `Upgrade` with 426. */
const FIXED_HEADERS: { readonly [code in RefusalCode]?: Readonly<Record<string, string>> } = {
  token_missing: { "WWW-Authenticate": "Bearer" },
  token_invalid: { "WWW-Authenticate": 'Bearer error="invalid_token"' },
  ticket_refused: { "WWW-Authenticate": "Ticket" },
  session_refused: { "WWW-Authenticate": "Ticket" },
  upgrade_required: {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
  },
  store_unavailable: { "Retry-After": "2" },
  keys_unavailable: { "Retry-After": "5" },
  shutting_down: { "Retry-After": "5" },
};

/** A refusal out of the table. */
export function refuse(code: RefusalCode, headers?: Record<string, string>): Refusal {
  return headers ? { ok: false, code, headers } : { ok: false, code };
}

/** `token_invalid`, with what the log may say about it. */
export function refuseToken(fault: TokenFault): Refusal {
  return { ok: false, code: "token_invalid", fault };
}

/** `too_many_requests`, with `Retry-After` in whole seconds (RFC 9110 section 10.2.3). */
export function refuseFor(waitMs: number): Refusal {
  return refuse("too_many_requests", { "Retry-After": String(Math.ceil(waitMs / 1000)) });
}

/**
 * A refusal as an HTTP response: `application/problem+json` (RFC 9457) with its `code`, and nothing of what
 * the client sent. `headers` replaces the headers that every response has.
 *
 * @example
 * const redeemed = await gate.redeem(ticket, { purpose: "download" });
 * if (!redeemed.ok) return refusalResponse(redeemed);
 */
export function refusalResponse(
  refusal: Refusal,
  headers: Readonly<Record<string, string>> = RESPONSE_HEADERS,
): Response {
  const { code } = refusal;
  const [status, detail] = REFUSALS[code];
  return new Response(JSON.stringify({ type: "about:blank", status, code, detail }), {
    status,
    headers: {
      ...headers,
      "Content-Type": "application/problem+json",
      ...FIXED_HEADERS[code],
      ...refusal.headers,
    },
  });
}

/** Every code of the table, for documentation and tests. */
export const REFUSAL_CODES: readonly RefusalCode[] = Object.keys(REFUSALS) as RefusalCode[];
