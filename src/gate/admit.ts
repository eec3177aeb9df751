import type { Deps } from "./gate.ts";
import { faultCode } from "../lib/log.ts";
import { isAllowedOrigin, isSecure } from "../request/origin.ts";
import { limitKey, peerAddress } from "../request/address.ts";
import { isRevoked } from "./revocation.ts";
import { type Refusal, refuse, refuseFor } from "../request/refusal.ts";
import type { Credential } from "./store.ts";
import { isTicket, redeemTicket } from "./ticket.ts";
import { parseUrl, readTicket } from "../request/url.ts";
import { visitorCookieName } from "./visitor.ts";

/** Who is at the other end of a socket, by what credential, and until when (wall clock, milliseconds). */
export interface Identity extends Credential {
  readonly expiresAtMs: number;
}

/** A handshake that passed every check. */
export interface Admission {
  readonly ok: true;
  readonly identity: Identity;
  /** For the log: which ticket it was. */
  readonly ticketTag?: string;
}

/**
 * Decides whether a WebSocket handshake (RFC 6455 section 4.2) is let in, and as whom. Cheapest check
 * first and the ticket last, so that no handshake that could have been refused costs one. Never throws.
 *
 * `socketAddress` is what the connection itself says; it counts for limits only.
 */
export async function admit(
  request: Request,
  deps: Deps,
  socketAddress?: string,
): Promise<Admission | Refusal> {
  const peer = limitKey(peerAddress(request, socketAddress, deps.trustProxy));
  const admission = await climb(request, deps, peer);
  const failed = !admission.ok && ["ticket_refused", "session_refused"].includes(admission.code);
  if (failed && peer) deps.limits.failures.count(peer);
  return admission;
}

async function climb(
  request: Request,
  deps: Deps,
  peer: string | undefined,
): Promise<Admission | Refusal> {
  if (deps.isDraining()) return refuse("shutting_down");

  const target = parseUrl(request);
  if (!target.ok) return target;
  const { url } = target;

  const fault = handshakeFault(request);
  if (fault) return fault;

  const hasOrigin = request.headers.has("origin");
  if (hasOrigin && !isAllowedOrigin(request, url, deps.origins)) return refuse("origin_refused");

  const credential = readTicket(url);
  if (!credential.ok) return credential;
  const { ticket } = credential;
  if (ticket !== undefined && !isTicket(ticket)) return refuse("ticket_refused");

  const waitMs = peer ? deps.limits.failures.waitMs(peer) : 0;
  if (waitMs > 0) return refuseFor(waitMs);

  if (ticket === undefined) return admitVisitor(request, url, deps);

  if (!(await hearsOthers(deps))) return refuse("store_unavailable");
  const redeemed = await redeemTicket(ticket, deps);
  if (!redeemed.ok) return redeemed;
  const { user, ticketTag } = redeemed;
  const { id, session, issuedAtMs, tokenExpiresAtMs: expiresAtMs } = user;
  return { ok: true, identity: { kind: "user", id, session, issuedAtMs, expiresAtMs }, ticketTag };
}

/**
 * Whether this server is told from now on what others on the same Redis do. Asked before the store is, so
 * that no sign-out falls between the store's answer and the open socket.
 */
async function hearsOthers({ feed, log }: Deps): Promise<boolean> {
  try {
    await feed?.ready();
    return true;
  } catch (error) {
    log("error", "feed_failed", { code: faultCode(error) });
    return false;
  }
}

/** By the cookie; a page that may not use it is no way in, and neither is a client that doesn't say which page it is. */
async function admitVisitor(request: Request, url: URL, deps: Deps): Promise<Admission | Refusal> {
  const secure = isSecure(url, deps.origins);
  const cookies = request.headers.get("cookie");
  const named = cookies?.includes(`${visitorCookieName(secure)}=`);
  if (named && !request.headers.has("origin")) return refuse("origin_refused");
  const visitor = await deps.visitors.read(cookies, { secure });
  if (!visitor) return refuse("session_refused");
  if (!(await hearsOthers(deps))) return refuse("store_unavailable");
  const identity = { kind: "visitor", ...visitor } as const;
  const revoked = await isRevoked(identity, deps);
  if (revoked === "unknown") return refuse("store_unavailable");
  return revoked ? refuse("session_refused") : { ok: true, identity };
}

/** What is wrong with a request as an opening handshake (RFC 6455 section 4.2.1), if anything. */
function handshakeFault({ method, headers }: Request): Refusal | undefined {
  if (method !== "GET") return refuse("method_not_allowed", { Allow: "GET" });
  if (headers.get("upgrade")?.toLowerCase() !== "websocket") return refuse("upgrade_required");
  if (headers.get("sec-websocket-version") !== "13") return refuse("upgrade_required");
  const connection = (headers.get("connection") ?? "").toLowerCase().split(",");
  const key = headers.get("sec-websocket-key") ?? "";
  const hasBody =
    headers.has("transfer-encoding") ||
    headers.has("expect") ||
    (headers.get("content-length") ?? "0") !== "0";
  const valid =
    connection.some((option) => option.trim() === "upgrade") &&
    /^[A-Za-z0-9+/]{21}[AQgw]==$/.test(key) &&
    !hasBody;
  return valid ? undefined : refuse("handshake_invalid");
}
