import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "../lib/deadline.ts";
import { createRateLimit } from "../lib/limit.ts";
import { faultCode, type Log } from "../lib/log.ts";
import type { Incoming } from "../request/incoming.ts";
import type { Scope } from "../request/scope.ts";
import { type Refusal, refuse, refuseFor, refuseToken } from "../request/refusal.ts";
import type { Identity, UserCredential } from "./identity.ts";
import type { Revocations } from "./revocation.ts";
import { type Identified, toIdentity } from "./ticket.ts";
import { type ProvedByToken, readBearer, type TokenVerifier } from "./token.ts";
import type { UserSessions } from "./user-session.ts";
import type { VisitorSessions } from "./visitor.ts";

/** Failed attempts (bad tokens, bad tickets) per address and minute; beyond it attempts are slowed down. */
const FAILURES_PER_MINUTE = 120;
/** Attempts per second of an address with too many failures, so that a good credential still gets in. */
const SLOW_ATTEMPTS_PER_SECOND = 10;

/**
 * Handshakes with good cookies per address and minute, all at once or spread out: further ones are refused. Each takes
 * many times longer than any other request and leaves three lines in the log, and a new cookie is a new visitor.
 */
const VISITS_PER_ADDRESS = 600;

/** Finds out who sent a request. */
export interface Authenticator {
  /**
   * The user that a request proves: `token_missing`, `token_invalid`, `keys_unavailable`, `too_many_requests`,
   * and `origin_refused` for a proof that browsers attach by themselves. In the scope of the inbox its cookie
   * counts where there is no `Authorization`; `session_refused` without it.
   */
  user(incoming: Incoming): Promise<Identified | Refusal>;
  /** The user of a bearer token, wherever it was sent: `token_invalid`, `keys_unavailable`, `too_many_requests`. */
  bearer(incoming: Incoming, token: string): Promise<ProvedByToken | Refusal>;
  /**
   * The visitor of the request's cookie, from an allowed page, and not revoked. `isLasting`: for a connection,
   * so that later revocations have to arrive, too.
   */
  visitor(
    incoming: Incoming,
    options?: { readonly isLasting?: boolean },
  ): Promise<Identified | Refusal>;
  /** Whether a request has the visitor's cookie of its scope, whatever its value. */
  hasVisitorCookie(incoming: Incoming): boolean;
  /** The user, or a visitor where the request has no proof of a user; not revoked. */
  anyone(incoming: Incoming): Promise<Identified | Refusal>;
  /** How many attempts an address may make. */
  readonly attempts: Attempts;
}

/** Slows down an address with many failed attempts: what is known to be good still gets in, and costs no attempt. */
export interface Attempts {
  /** For what costs a look into a store, or at a signature with a public key: milliseconds until the sender may try again; 0 when it may now. */
  waitMs(incoming: Incoming): number;
  /** Counts a failed attempt. */
  count(incoming: Incoming): void;
  /** The response to what turned out to be bad without such a look: `refusal`, or that there were too many. */
  refuse(incoming: Incoming, refusal: Refusal): Refusal;
}

/** A proof of a caller's own: whose request it is; `undefined` for one without a proof. */
export type ProveUser<Claims = unknown> = (
  request: Request,
) => UserCredential<Claims> | undefined | Promise<UserCredential<Claims> | undefined>;

export function createAuthenticator(options: {
  /** A bearer JWT, or a proof of the caller's own. */
  users: TokenVerifier | { prove: ProveUser };
  /** Left out: there are no visitors in this scope. */
  visitors: { readonly [scope in Scope]?: VisitorSessions | undefined };
  /** Left out: users have no cookie. */
  userSessions: UserSessions | undefined;
  revocations: Pick<Revocations, "areFollowed" | "isRevoked">;
  /** Handshakes of each; 0 for no limit. */
  visitsPerMinute: number;
  clock: Clock;
  log: Log;
}): Authenticator {
  const { users, visitors, userSessions, revocations, visitsPerMinute, clock, log } = options;
  const attempts = createAttempts(clock);
  const visits = createVisits(visitsPerMinute, clock);

  async function bearer(incoming: Incoming, token: string): Promise<ProvedByToken | Refusal> {
    if (typeof users !== "function") return refuseToken("not_a_jwt");
    let hasWaited = false;
    const verified = await users(token, () => {
      hasWaited = true;
      return attempts.waitMs(incoming);
    });
    if (verified.ok) return verified;
    const isBad = verified.code === "token_invalid" || verified.fault === "key_unknown";
    if (!isBad) return verified;
    if (!hasWaited) return attempts.refuse(incoming, verified);
    attempts.count(incoming);
    return verified;
  }

  async function own(incoming: Incoming, prove: ProveUser): Promise<Identified | Refusal> {
    // The proof may be a cookie, which browsers attach to requests from any page.
    if (incoming.origin === "foreign") return refuse("origin_refused");
    const waitMs = attempts.waitMs(incoming);
    if (waitMs > 0) return refuseFor(waitMs);
    let credential: UserCredential | undefined;
    try {
      const proving = Promise.resolve(prove(copyOf(incoming.request)));
      credential = await withinDeadline(proving, DEPENDENCY_DEADLINE_MS, clock);
    } catch (error) {
      log("error", "keys_unavailable", { code: faultCode(error) });
      return refuse("keys_unavailable");
    }
    if (!credential) {
      if (hasAuthorization(incoming)) attempts.count(incoming);
      return refuse("token_missing");
    }
    const identity = toIdentity(credential, clock.nowMs());
    return identity.expiresAtMs > clock.nowMs() ? { ok: true, identity } : refuseToken("expired");
  }

  async function session(
    incoming: Incoming,
    sessions: UserSessions,
  ): Promise<Identified | Refusal> {
    const { request, isSecure: secure } = incoming;
    const identity = await sessions.read(request.headers.get("cookie"), { secure });
    if (!identity) return refuse("session_refused");
    return incoming.isOwnPage ? { ok: true, identity } : refuse("origin_refused");
  }

  async function user(incoming: Incoming): Promise<Identified | Refusal> {
    if (incoming.scope === "inbox" && userSessions && !hasAuthorization(incoming)) {
      return session(incoming, userSessions);
    }
    if (typeof users !== "function") return own(incoming, users.prove);
    const read = readBearer(incoming.request.headers.get("authorization"));
    return read.ok ? bearer(incoming, read.token) : read;
  }

  async function unlessRevoked(
    identified: Identified,
    { isLasting = false } = {},
  ): Promise<Identified | Refusal> {
    const { identity } = identified;
    if (isLasting && !(await revocations.areFollowed())) return refuse("store_unavailable");
    const revoked = await revocations.isRevoked(identity);
    if (revoked === "unknown") return refuse("store_unavailable");
    if (!revoked) return identified;
    return identity.kind === "user" ? refuseToken("revoked") : refuse("session_refused");
  }

  async function visitor(
    incoming: Incoming,
    options?: { readonly isLasting?: boolean },
  ): Promise<Identified | Refusal> {
    const { request, isSecure: secure, scope } = incoming;
    const identity = await visitors[scope]?.read(request.headers.get("cookie"), { secure });
    if (!identity) return refuse("session_refused");
    if (!mayUseCookie(incoming)) return refuse("origin_refused");
    const waitMs = options?.isLasting ? visits.take(incoming, identity) : 0;
    if (waitMs > 0) return refuseFor(waitMs);
    return unlessRevoked({ ok: true, identity }, options);
  }

  return {
    attempts,
    user,
    bearer,
    visitor,
    hasVisitorCookie({ request, isSecure, scope }) {
      const name = visitors[scope]?.name(isSecure);
      const cookies = request.headers.get("cookie") ?? "";
      return name !== undefined && cookies.includes(`${name}=`);
    },
    async anyone(incoming) {
      const identified = await user(incoming);
      if (identified.ok) return unlessRevoked(identified);
      const hasNoProof = identified.code === "token_missing" && !hasAuthorization(incoming);
      return hasNoProof ? visitor(incoming) : identified;
    },
  };
}

/** For a proof that reads the body, which the route reads, too. */
function copyOf(request: Request): Request {
  const isRead = request.method === "GET" || request.method === "HEAD" || request.bodyUsed;
  return isRead ? request : request.clone();
}

function hasAuthorization({ request }: Incoming): boolean {
  return request.headers.has("authorization");
}

/**
 * Whether a request may use the visitor's cookie: it comes from an allowed page. Browsers leave `Origin` out
 * when a page of the server's own reads something.
 */
function mayUseCookie(incoming: Incoming): boolean {
  const { request, origin, scope } = incoming;
  if (scope !== "site") return incoming.isOwnPage;
  if (origin !== "none") return origin === "allowed";
  const { method, headers } = request;
  const isReading = method === "GET" || method === "HEAD";
  return isReading || headers.get("sec-fetch-site") === "same-origin";
}

/** How often visitors may connect: `perMinute` each, 0 for no limit. Returns the milliseconds to wait. */
function createVisits(perMinute: number, clock: Clock) {
  const byVisitor = createRateLimit<string>({ allowed: perMinute, windowMs: 60_000, clock });
  const byAddress = createRateLimit<string>({
    allowed: VISITS_PER_ADDRESS,
    windowMs: 60_000,
    clock,
  });
  return {
    // One who comes back too often uses up nothing of what others at the same address may do.
    take: ({ limitKey }: Incoming, { id }: Identity): number =>
      byVisitor.take(id) || (limitKey === undefined ? 0 : byAddress.take(limitKey)),
  };
}

function createAttempts(clock: Clock): Attempts {
  const failures = createRateLimit<string>({
    allowed: FAILURES_PER_MINUTE,
    windowMs: 60_000,
    clock,
  });
  const slow = createRateLimit<string>({
    allowed: SLOW_ATTEMPTS_PER_SECOND,
    windowMs: 1_000,
    clock,
  });
  function waitMs(incoming: Incoming): number {
    // Without any failure there is no need for the address, which is slow to find out.
    if (failures.size === 0) return 0;
    const { limitKey } = incoming;
    if (limitKey === undefined || failures.waitMs(limitKey) === 0) return 0;
    return slow.take(limitKey);
  }

  function count({ limitKey }: Incoming): void {
    if (limitKey !== undefined) failures.count(limitKey);
  }

  return {
    waitMs,
    count,
    refuse(incoming, refusal) {
      const wait = waitMs(incoming);
      if (wait > 0) return refuseFor(wait);
      count(incoming);
      return refusal;
    },
  };
}
