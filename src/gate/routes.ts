import type { Clock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import type { Log } from "../lib/log.ts";
import { emptyResponse, headersFor, type Incoming, jsonResponse } from "../request/incoming.ts";
import { type Refusal, refuse, refuseFor, refuseToken } from "../request/refusal.ts";
import { createRoutes, declined, type RouteContext } from "../request/routes.ts";
import { SIGN_OUT_PATH, TICKET_PATH, VISITOR_PATH } from "../wire/paths.ts";
import type { Authenticator } from "./authenticate.ts";
import type { Identity } from "./identity.ts";
import { type Revocations, SIGN_OUTS_PER_MINUTE } from "./revocation.ts";
import type { Tickets } from "./ticket.ts";
import type { VisitorSessions } from "./visitor.ts";

/** Visitors' sessions issued or renewed per address and minute. */
const SESSIONS_PER_MINUTE = 60;

/** The gate's own routes: the ticket, the visitor's session, sign-out. Web standards only. */
export function createGateRoutes(options: {
  basePath: string;
  authenticator: Authenticator;
  tickets: Tickets;
  visitors: VisitorSessions | undefined;
  revocations: Revocations;
  /** Whether users are known by something that browsers attach by themselves, such as a cookie. */
  usersHaveCookies: boolean;
  clock: Clock;
  log: Log;
}): (incoming: Incoming) => Response | Promise<Response> {
  const { basePath, authenticator, tickets, visitors, revocations, log, clock } = options;
  const sessions = perMinute(SESSIONS_PER_MINUTE);
  /** Sign-outs by session. */
  const attempts = perMinute(SIGN_OUTS_PER_MINUTE);
  const forUsers = { methods: "POST", credentials: options.usersHaveCookies };
  const forVisitors = { methods: "POST", credentials: true };

  function perMinute(allowed: number) {
    return createRateLimit<string>({ allowed, windowMs: 60_000, clock });
  }

  const routes = createRoutes(log);

  async function issueTicket(c: RouteContext): Promise<Response> {
    const { incoming } = c.env;
    const user = await authenticator.user(incoming);
    const issued = user.ok ? await tickets.issue(user.identity) : user;
    if (!issued.ok) return declined(c, issued, log, forUsers);
    const body = { ticket: issued.ticket, expiresIn: issued.expiresInSeconds };
    return jsonResponse(body, headersFor(incoming, forUsers));
  }
  routes.add(`${basePath}${TICKET_PATH}`, { POST: issueTicket }, forUsers);

  async function issueSession(c: RouteContext, sessionsOf: VisitorSessions): Promise<Response> {
    const { incoming } = c.env;
    if (incoming.origin === "foreign") {
      return declined(c, refuse("origin_refused"), log, forVisitors);
    }
    const { limitKey, isSecure: secure } = incoming;
    const waitMs = limitKey === undefined ? 0 : sessions.take(limitKey);
    if (waitMs > 0) return declined(c, refuseFor(waitMs), log, forVisitors);
    const known = await sessionsOf.read(incoming.request.headers.get("cookie"), { secure });
    const revoked = known ? await revocations.isRevoked(known) : true;
    if (revoked === "unknown") return declined(c, refuse("store_unavailable"), log, forVisitors);
    const cookie = await sessionsOf.issue({ id: revoked ? undefined : known?.id, secure });
    return emptyResponse({ ...headersFor(incoming, forVisitors), "Set-Cookie": cookie });
  }
  if (visitors) {
    const POST = (c: RouteContext) => issueSession(c, visitors);
    routes.add(`${basePath}${VISITOR_PATH}`, { POST }, forVisitors);
  }

  async function endSession(c: RouteContext): Promise<Response> {
    const user = await authenticator.user(c.env.incoming);
    if (!user.ok) return declined(c, user, log, forUsers);
    const body = await readSignOut(c.req.raw);
    if (!body) return declined(c, refuse("malformed_request"), log, forUsers);
    const done = await signOut(user.identity, body);
    return done.ok
      ? emptyResponse(headersFor(c.env.incoming, forUsers))
      : declined(c, done, log, forUsers);
  }
  routes.add(`${basePath}${SIGN_OUT_PATH}`, { POST: endSession }, forUsers);

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
    const waitMs = revocations.spendSignOut(id);
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
    const body: unknown = JSON.parse(text);
    if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
    const { everywhere = false } = body as { everywhere?: unknown };
    return typeof everywhere === "boolean" ? { everywhere } : undefined;
  } catch {
    return undefined;
  }
}
