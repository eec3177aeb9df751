import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS, DeadlineError, withinDeadline } from "../lib/deadline.ts";
import { parseJson } from "../lib/json.ts";
import { createRateLimit } from "../lib/limit.ts";
import type { Log } from "../lib/log.ts";
import { emptyResponse, headersFor, type Incoming, jsonResponse } from "../request/incoming.ts";
import { type Refusal, refuse, refuseFor, refuseToken } from "../request/refusal.ts";
import type { Scope } from "../request/scope.ts";
import { createRoutes, declined, refused, type RouteContext } from "../request/routes.ts";
import { SIGN_OUT_PATH, TICKET_PATH, VISITOR_PATH } from "../wire/paths.ts";
import type { Authenticator } from "./authenticate.ts";
import type { Identity } from "./identity.ts";
import { type Revocations, SIGN_OUTS_PER_MINUTE } from "./revocation.ts";
import type { Tickets } from "./ticket.ts";
import type { UserSessions } from "./user-session.ts";
import type { VisitorSessions } from "./visitor.ts";

/** Visitors' sessions issued or renewed per address and minute. */
const SESSIONS_PER_MINUTE = 60;
/** Looks at whether a visitor has one, per address and minute. */
const LOOKS_PER_MINUTE = 600;

/** The gate's own routes: the ticket, the visitor's session, sign-out. Web standards only. */
export function createGateRoutes(options: {
  basePath: string;
  authenticator: Authenticator;
  tickets: Tickets;
  visitors: { readonly [scope in Scope]?: VisitorSessions };
  /** Left out: users have no cookie. */
  userSessions: UserSessions | undefined;
  revocations: Revocations;
  /** Whether users are known by something that browsers attach by themselves, such as a cookie. */
  usersHaveCookies: boolean;
  clock: Clock;
  log: Log;
}): (incoming: Incoming) => Response | Promise<Response> {
  const { basePath, authenticator, tickets, visitors, userSessions } = options;
  const { revocations, log, clock } = options;
  const sessions = perMinute(SESSIONS_PER_MINUTE);
  const looks = perMinute(LOOKS_PER_MINUTE);
  /** Sign-outs by session. */
  const attempts = perMinute(SIGN_OUTS_PER_MINUTE);
  const forUsers = { methods: "POST", credentials: options.usersHaveCookies };
  const forVisitors = { methods: "GET,POST", credentials: true };

  function perMinute(allowed: number) {
    return createRateLimit<string>({ allowed, windowMs: 60_000, clock });
  }

  const routes = createRoutes(log);

  async function issueTicket(c: RouteContext): Promise<Response> {
    const { incoming } = c.env;
    if (incoming.scope === "embed") return refused(c, refuse("not_found"));
    const user = await authenticator.user(incoming);
    const issued = user.ok ? await tickets.issue(user.identity) : user;
    if (!issued.ok) return declined(c, issued, log, forUsers);
    const body = { ticket: issued.ticket, expiresIn: issued.expiresInSeconds };
    return jsonResponse(body, headersFor(incoming, forUsers));
  }
  routes.add(`${basePath}${TICKET_PATH}`, { POST: issueTicket }, forUsers);

  /** Whether a page has a visitor's cookie. Sets none: whoever has only opened a page isn't remembered. */
  async function lookAtSession(c: RouteContext): Promise<Response> {
    const { incoming } = c.env;
    if (!visitors[incoming.scope]) return refused(c, refuse("not_found"), forVisitors);
    const { limitKey } = incoming;
    const waitMs = limitKey === undefined ? 0 : looks.take(limitKey);
    if (waitMs > 0) return declined(c, refuseFor(waitMs), log, forVisitors);
    const visitor = await authenticator.visitor(incoming);
    const isUnknown = !visitor.ok && visitor.code === "session_refused";
    if (!visitor.ok && !isUnknown) return declined(c, visitor, log, forVisitors);
    return jsonResponse({ known: visitor.ok }, headersFor(incoming, forVisitors));
  }

  async function issueSession(c: RouteContext): Promise<Response> {
    const { incoming } = c.env;
    const { limitKey, isSecure: secure, scope } = incoming;
    const sessionsOf = visitors[scope];
    if (!sessionsOf) return refused(c, refuse("not_found"), forVisitors);
    if (incoming.origin === "foreign" || (scope !== "site" && !incoming.isOwnPage)) {
      return declined(c, refuse("origin_refused"), log, forVisitors);
    }
    const waitMs = limitKey === undefined ? 0 : sessions.take(limitKey);
    if (waitMs > 0) return declined(c, refuseFor(waitMs), log, forVisitors);
    const known = await sessionsOf.read(incoming.request.headers.get("cookie"), { secure });
    const revoked = known ? await revocations.isRevoked(known) : true;
    if (revoked === "unknown") return declined(c, refuse("store_unavailable"), log, forVisitors);
    const cookie = await sessionsOf.issue({ id: revoked ? undefined : known?.id, secure });
    return emptyResponse({ ...headersFor(incoming, forVisitors), "Set-Cookie": cookie });
  }
  if (visitors.site) {
    const handlers = { GET: lookAtSession, POST: issueSession };
    routes.add(`${basePath}${VISITOR_PATH}`, handlers, forVisitors);
  }

  async function endSession(c: RouteContext): Promise<Response> {
    const { scope, isSecure: secure } = c.env.incoming;
    if (scope === "embed") return refused(c, refuse("not_found"));
    const user = await authenticator.user(c.env.incoming);
    if (!user.ok) return declined(c, user, log, forUsers);
    const body = await readSignOut(c.req.raw);
    if (!body) return declined(c, refuse("malformed_request"), log, forUsers);
    const done = await signOutInTime(user.identity, body);
    if (!done.ok) return declined(c, done, log, forUsers);
    const cleared = scope === "inbox" ? userSessions?.clear({ secure }) : undefined;
    const headers = headersFor(c.env.incoming, forUsers);
    return emptyResponse({ ...headers, ...(cleared && { "Set-Cookie": cleared }) });
  }
  routes.add(`${basePath}${SIGN_OUT_PATH}`, { POST: endSession }, forUsers);

  /** Each step may take as long as a store may. All together may take no longer, and then go on without their caller. */
  async function signOutInTime(...how: Parameters<typeof signOut>): ReturnType<typeof signOut> {
    try {
      return await withinDeadline(signOut(...how), DEPENDENCY_DEADLINE_MS, clock);
    } catch (error) {
      if (error instanceof DeadlineError) return refuse("store_unavailable");
      throw error;
    }
  }

  async function signOut(
    identity: Identity,
    { everywhere }: { everywhere: boolean },
  ): Promise<{ readonly ok: true } | Refusal> {
    const { id, session, expiresAtMs } = identity;
    const own = everywhere ? undefined : session;
    // A token without `iat` would be refused together with every later one.
    if (own === undefined && identity.issuedAtMs === 0) return refuse("malformed_request");
    // Attempts count by session first: one that has ended must not use up what its user may do.
    const attemptWaitMs = attempts.take(JSON.stringify([id, session]));
    if (attemptWaitMs > 0) return refuseFor(attemptWaitMs);
    const revoked = await revocations.isRevoked(identity);
    if (own === undefined && revoked === "unknown") return refuse("store_unavailable");
    // Nor may it end the other sessions.
    if (revoked === true) return own === undefined ? refuseToken("revoked") : { ok: true };
    const waitMs = await revocations.spendSignOut(id);
    if (waitMs > 0) return refuseFor(waitMs);
    return own === undefined
      ? revocations.endAll(identity)
      : revocations.endSession({ id, session: own, expiresAtMs });
  }

  return routes.handle;
}

/** The body of a sign-out: none, or `{"everywhere": true}`; `undefined` for anything else. */
async function readSignOut(request: Request): Promise<{ everywhere: boolean } | undefined> {
  const text = await request.text();
  if (text === "") return { everywhere: false };
  try {
    const body: unknown = parseJson(text);
    if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
    const { everywhere = false } = body as { everywhere?: unknown };
    return typeof everywhere === "boolean" ? { everywhere } : undefined;
  } catch {
    return undefined;
  }
}
