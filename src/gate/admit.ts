import type { Incoming } from "../request/incoming.ts";
import { type Refusal, refuse, refuseFor } from "../request/refusal.ts";
import { isWithoutHost, readTicket } from "../request/url.ts";
import type { Authenticator } from "./authenticate.ts";
import type { Revocations } from "./revocation.ts";
import { type Identified, isTicket, type Tickets } from "./ticket.ts";

/** A handshake that passed every check. */
export interface Admission<Claims = unknown> extends Identified<Claims> {
  /** For logs: the first six characters of the ticket's hash. */
  readonly ticketTag?: string | undefined;
}

/**
 * Decides whether a WebSocket handshake (RFC 6455 section 4.2) is admitted, and as whom. The cheapest check
 * comes first and the ticket last, so that a handshake that could be refused otherwise doesn't cost one.
 */
export async function admit(
  incoming: Incoming,
  gate: {
    authenticator: Authenticator;
    tickets: Tickets;
    revocations: Revocations;
  },
): Promise<Admission | Refusal> {
  const { authenticator, tickets, revocations } = gate;
  const { attempts } = authenticator;

  const fault = handshakeFault(incoming.request);
  if (fault) return fault;
  if (isWithoutHost(incoming.url)) return refuse("handshake_invalid");

  if (incoming.origin === "foreign") return refuse("origin_refused");

  const credential = readTicket(incoming.url);
  if (!credential.ok) return credential;
  const { ticket } = credential;

  if (ticket !== undefined) return redeem(ticket);
  if (incoming.origin === "none") {
    // A cookie counts only with an `Origin`: any page can make a browser send it.
    const isNamed = authenticator.hasVisitorCookie(incoming);
    return failed(refuse(isNamed ? "origin_refused" : "session_refused"));
  }
  const visitor = await authenticator.visitor(incoming, { isLasting: true });
  const isBad = !visitor.ok && visitor.code === "session_refused";
  return isBad ? attempts.refuse(incoming, visitor) : visitor;

  async function redeem(ticket: string): Promise<Admission | Refusal> {
    if (!isTicket(ticket)) return failed(refuse("ticket_refused"));
    // What was issued here, or by a sibling, needn't wait for those who try others from the same address.
    const waitMs = attempts.waitMs(incoming);
    if (waitMs > 0 && !(await tickets.isOwn(ticket))) return refuseFor(waitMs);
    if (!(await revocations.areFollowed())) return refuse("store_unavailable");
    const redeemed = await tickets.redeem(ticket);
    return redeemed.ok ? redeemed : failed(redeemed);
  }

  function failed(refusal: Refusal): Refusal {
    const isBadCredential = refusal.code === "ticket_refused" || refusal.code === "session_refused";
    if (isBadCredential) attempts.count(incoming);
    return refusal;
  }
}

/** What is wrong with a request as an opening handshake (RFC 6455 section 4.2.1), if anything. */
function handshakeFault({ method, headers }: Request): Refusal | undefined {
  if (method !== "GET") return refuse("method_not_allowed", { Allow: "GET" });
  if (headers.get("upgrade")?.toLowerCase() !== "websocket") return refuse("upgrade_required");
  if (headers.get("sec-websocket-version") !== "13") return refuse("upgrade_required");
  const key = headers.get("sec-websocket-key") ?? "";
  const hasBody =
    headers.has("transfer-encoding") ||
    headers.has("expect") ||
    (headers.get("content-length") ?? "0") !== "0";
  const isValid =
    // Not by splitting: a client can write thousands of options.
    /(?:^|,)[ \t]*upgrade[ \t]*(?:,|$)/i.test(headers.get("connection") ?? "") &&
    /^[A-Za-z0-9+/]{21}[AQgw]==$/.test(key) &&
    !hasBody;
  return isValid ? undefined : refuse("handshake_invalid");
}
