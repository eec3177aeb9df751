import type { ChatLog } from "../chat/history.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { utf8 } from "../lib/encoding.ts";
import { createLog, type Log } from "../lib/log.ts";
import { createRateLimit, type RateLimit } from "../lib/limit.ts";
import type { OriginPolicy } from "../request/origin.ts";
import type { Feed } from "../redis/feed.ts";
import { memoryTicketStore } from "./memory.ts";
import type { Revocation, TicketStore } from "./store.ts";
import { createTokenVerifier, type TokenKeys, type TokenVerifier } from "./token.ts";
import { createVisitorSessions, type VisitorSessions } from "./visitor.ts";

/** Shortest secret, in bytes: the output of the shortest hash that is used with it (RFC 7518 section 3.2). */
export const MIN_SECRET_BYTES = 32;
/** Failed attempts (bad tokens, bad tickets) per address and minute, beyond which it has to wait. */
const FAILURES_PER_MINUTE = 120;
/** Visitors' sessions made or renewed per address and minute. */
const SESSIONS_PER_MINUTE = 60;

/** Everything that the parts of the server share: one plain object, made once. */
export interface Deps {
  readonly store: TicketStore;
  readonly verifyToken: TokenVerifier;
  readonly visitors: VisitorSessions;
  readonly origins: OriginPolicy;
  readonly clock: Clock;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly log: Log;
  readonly ticketTtlMs: number;
  /** Proxies whose `X-Forwarded-For` counts. */
  readonly trustProxy: number;
  readonly limits: {
    /** Tickets per user. */
    readonly tickets: RateLimit<string>;
    /** Failed attempts per address. */
    readonly failures: RateLimit<string>;
    /** Visitors' sessions per address. */
    readonly sessions: RateLimit<string>;
  };
  /** Where chats are kept; without it there are no routes for them. */
  readonly chat?: ChatLog | undefined;
  /** What instances on one Redis tell each other; without it this one is alone. */
  readonly feed?: Feed | undefined;
  /** What an operator shows to end other people's sockets; without it nobody can. */
  readonly adminToken?: string | undefined;
  /** Set in the demo mode only: signs a token for any name. */
  readonly signDemoToken?: ((user: string) => Promise<string>) | undefined;
  /** Whether this server is on its way out; `serve` sets it. */
  readonly isDraining: () => boolean;
  /** Ends the open sockets that a revocation covers; `serve` sets it. */
  readonly onRevoked: (revocation: Revocation) => void;
}

/** What is needed to make `Deps`; the rest has defaults. */
export interface DepsOptions {
  /** How tokens are verified: the secret of at least 32 bytes (HS256/384/512), or the issuer's key set. */
  keys: TokenKeys;
  /** At least 32 bytes; visitors' cookies are signed with a key derived from it. */
  sessionSecret: Uint8Array;
  issuer?: string | undefined;
  audience?: string | undefined;
  /** The claim that identifies a user. Default `sub`. */
  userClaim?: string | undefined;
  /** Exact origins; default the server's own. */
  allowedOrigins?: readonly string[] | undefined;
  publicUrl?: URL | undefined;
  /** Default: in this process. */
  store?: TicketStore | undefined;
  /** Default 30,000. */
  ticketTtlMs?: number | undefined;
  /** Per user; default 60, 0 for no limit. */
  ticketsPerMinute?: number | undefined;
  trustProxy?: number | undefined;
  clock?: Clock | undefined;
  randomBytes?: ((length: number) => Uint8Array) | undefined;
  /** Default: warnings and errors to stdout. */
  log?: Log | undefined;
  chat?: ChatLog | undefined;
  feed?: Feed | undefined;
  /** At least 32 bytes; the route for operators exists only with it. */
  adminToken?: string | undefined;
  signDemoToken?: ((user: string) => Promise<string>) | undefined;
}

/** Fills in the defaults. Throws for secrets that are too short; web standards only. */
export function createDeps(options: DepsOptions): Deps {
  const {
    keys,
    sessionSecret,
    allowedOrigins,
    publicUrl,
    ticketTtlMs = 30_000,
    ticketsPerMinute = 60,
    trustProxy = 0,
    clock = systemClock,
    randomBytes = (length) => crypto.getRandomValues(new Uint8Array(length)),
    adminToken,
    signDemoToken,
  } = options;
  if (adminToken !== undefined) requireLength("Admin token", utf8(adminToken));
  requireLength("Session secret", sessionSecret);
  if ("secret" in keys) requireLength("Token secret", keys.secret);
  const log =
    options.log ??
    createLog({ level: "warn", clock, write: (line) => console.log(line.trimEnd()) });
  const perMinute = (allowed: number) =>
    createRateLimit<string>({ allowed, windowMs: 60_000, clock });
  return {
    store: options.store ?? memoryTicketStore({ clock }),
    verifyToken: createTokenVerifier({ ...options, clock, log }),
    visitors: createVisitorSessions({ secret: sessionSecret, clock, randomBytes }),
    origins: {
      ...(allowedOrigins && { allowed: new Set(allowedOrigins) }),
      ...(publicUrl && { publicUrl }),
    },
    clock,
    randomBytes,
    log,
    ticketTtlMs,
    trustProxy,
    limits: {
      tickets: perMinute(ticketsPerMinute),
      failures: perMinute(FAILURES_PER_MINUTE),
      sessions: perMinute(SESSIONS_PER_MINUTE),
    },
    chat: options.chat,
    feed: options.feed,
    adminToken,
    signDemoToken,
    isDraining: () => false,
    onRevoked: () => {},
  };
}

function requireLength(what: string, secret: Uint8Array): void {
  if (secret.length < MIN_SECRET_BYTES) {
    throw new RangeError(`${what} is too short: ${MIN_SECRET_BYTES} bytes are the least`);
  }
}
