/// <reference lib="esnext.disposable" preserve="true" />
import { type Clock, systemClock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import { createLog, faultCode, type Log } from "../lib/log.ts";
import { isLine } from "../lib/text.ts";
import {
  type ConnectionInfo,
  headersFor,
  type Incoming,
  type Origins,
  readRequest,
  type RequestPolicy,
  type Suspicion,
} from "../request/incoming.ts";
import { isStrictTransport, secureHeaders } from "../request/headers.ts";
import { publicPathOf, isBasePath, isExactOrigin, publicUrlFault } from "../request/origin.ts";
import { type Refusal, refusalResponse, refuse } from "../request/refusal.ts";
import type { Scope } from "../request/scope.ts";
import type { Close } from "../wire/close.ts";
import { isUserId, isVisitorId } from "../wire/ids.ts";
import { BASE_PATH } from "../wire/paths.ts";
import { type Admission, admit } from "./admit.ts";
import { type Authenticator, createAuthenticator, type ProveUser } from "./authenticate.ts";
import {
  type Identity,
  identityFields,
  identityKey,
  MAX_SESSION_LENGTH,
  type UserCredential,
} from "./identity.ts";
import { type KeySet, keySetFault } from "./jwks.ts";
import { createLive, type Live } from "./live.ts";
import { memoryTicketStore } from "./memory.ts";
import { requireMethods, requireSecrets, requireUrl, requireWhole } from "./options.ts";
import { createRevocations, type Revocations } from "./revocation.ts";
import { createGateRoutes } from "./routes.ts";
import type { TicketStore } from "./store.ts";
import {
  createTickets,
  type Identified,
  type IssuedTicket,
  toIdentity,
  type Tickets,
} from "./ticket.ts";
import { createTokenVerifier, type TokenKeys } from "./token.ts";
import { createUserSessions, type UserSessions } from "./user-session.ts";
import { createVisitorSessions, type VisitorSessions } from "./visitor.ts";

/** How users' bearer JWTs are verified, whatever the key. */
export interface TokenOptions {
  /** Enforced when given (`iss`). */
  readonly issuer?: string | undefined;
  /** Enforced when given (`aud`): one of these. */
  readonly audience?: string | readonly string[] | undefined;
  /** The claim that identifies a user. Default `sub`. */
  readonly userClaim?: string | undefined;
}

/** A secret that signs: tokens (HS256, HS384, HS512), or cookies. */
export interface SecretOptions {
  /** At least 32 bytes. */
  readonly secret: string | Uint8Array;
  /** The secret before this one: what was signed with it stays valid while it stands here. */
  readonly previousSecret?: string | Uint8Array | undefined;
}

/** Where an issuer's public keys are, as a JWKS (RFC 7517). */
export interface JwksOptions {
  /** https, or http on loopback. */
  readonly jwksUrl: string | URL;
  /** Plain http everywhere: for a private network, where nobody can put in other keys. Default `false`. */
  readonly allowHttp?: boolean | undefined;
}

/** An issuer's public keys themselves. */
export interface PublicKeyOptions {
  /** A JWKS (RFC 7517). A key without a `kid` is good for tokens with any. */
  readonly publicKeys: KeySet;
}

/** None of these. */
type Without<Options> = { readonly [Name in keyof Options]?: never };

/** Who users are: an issuer's secret, its keys or where they are, or a proof of your own. */
export type UserOptions<Claims = unknown> =
  | (TokenOptions & SecretOptions & Without<JwksOptions & PublicKeyOptions>)
  | (TokenOptions & JwksOptions & Without<SecretOptions & PublicKeyOptions>)
  | (TokenOptions & PublicKeyOptions & Without<SecretOptions & JwksOptions>)
  | ProveUser<Claims>;

/** How visitors are known. */
export interface VisitorOptions extends SecretOptions {
  /**
   * Whether they may also write in frames on other sites, below `/embed`: with a cookie of its own, which browsers
   * keep for each site. Default `false`.
   */
  readonly embedded?: boolean | undefined;
}

/** What a gate is made of. Only `users` is required. */
export interface GateOptions<Claims = unknown> {
  /**
   * How users prove who they are. A function receives the request and returns whose it is (a session, an API
   * key), or `undefined`; if it rejects, the request is refused with 503.
   */
  readonly users: UserOptions<Claims>;
  /**
   * Visitors' cookies are signed with keys derived from `secret`. Those signed with `previousSecret` stay valid, and
   * are renewed with `secret`. Left out: no visitors.
   */
  readonly visitors?: VisitorOptions | undefined;
  /**
   * Users' sessions on pages of your own below `/inbox`: a cookie, signed with a key derived from `secret`, that
   * stands for a bearer token. Needs `users` to verify tokens. Left out: none.
   */
  readonly userSessions?: SecretOptions | undefined;
  /** Default: in this process. The gate closes it. */
  readonly store?: TicketStore | undefined;
  /** Where its routes are. Default `/api/auth`. */
  readonly basePath?: string | undefined;
  /** Exact origins whose pages may use it, your own included. Default: the server's own. */
  readonly origins?: readonly string[] | undefined;
  /**
   * The server's URL as browsers see it, when a proxy stands in front. With a path, all routes are below it: the
   * proxy leaves it in what it forwards.
   */
  readonly publicUrl?: string | URL | undefined;
  /** 1,000 to 300,000. Default 30,000. */
  readonly ticketTtlMs?: number | undefined;
  /** Per user; a visitor may open as many sockets. Default 60; 0 for no limit. */
  readonly ticketsPerMinute?: number | undefined;
  /** Proxies whose `X-Forwarded-For` counts. Default 0. */
  readonly trustProxy?: number | undefined;
  /** `Strict-Transport-Security` over https. Default `max-age=31536000`, for this host alone; `false`: none. */
  readonly strictTransport?: string | false | undefined;
  /** Default: the machine's. */
  readonly clock?: Clock | undefined;
  /** Default: warnings and errors to the console. */
  readonly log?: Log | undefined;
  /** Default: the runtime's. */
  readonly randomBytes?: ((length: number) => Uint8Array) | undefined;
}

/** Decides who gets in. `Claims` is what tickets carry beside the user. */
export interface Gate<Claims = unknown> extends AsyncDisposable {
  /** Where its routes are. */
  readonly basePath: string;
  /**
   * Answers the requests below `basePath`: `POST /ws-ticket`, `/anonymous-session` and `/sign-out`; `not_found`
   * for all others. It never rejects. Limits per address need `socketAddress`, the other end of the connection.
   *
   * @example
   * app.all("/api/auth/*", (c) =>
   *   gate.fetch(c.req.raw, { socketAddress: getConnInfo(c).remote.address }),
   * );
   */
  fetch(request: Request, connection?: ConnectionInfo): Promise<Response>;
  /**
   * Issues a ticket for a user whom you have identified. `purpose` is what it is good for: the socket, unless
   * you say otherwise. Refusals: `token_invalid` for a credential that ends within a second or was revoked,
   * `too_many_requests`, `store_unavailable`. Throws a `TypeError` or `RangeError` for a credential that is
   * no credential, or claims of more than 1 KB.
   *
   * @example
   * const issued = await gate.issue({ user: "alice", expiresAtMs: session.expiresAtMs, purpose: "download" });
   */
  issue(
    credential: UserCredential<Claims> & { readonly purpose?: string | undefined },
  ): Promise<IssuedTicket | Refusal>;
  /**
   * Spends a ticket outside a socket: for a download, or an SSE stream. `ticket_refused` when it is unknown,
   * used, expired, or was issued for another purpose; it is spent then, too.
   *
   * @example
   * const redeemed = await gate.redeem(ticket, { purpose: "download" });
   * if (!redeemed.ok) return refusalResponse(redeemed);
   */
  redeem(
    ticket: string,
    options?: { readonly purpose?: string | undefined },
  ): Promise<Identified<Claims> | Refusal>;
  /**
   * Checks a WebSocket handshake (RFC 6455 section 4.2) and spends its ticket. For a server of your own in
   * another runtime, which decides on the path; `createSockets` of `ws-ticket/bun` does it by itself. Pass the identity to `follow`, or
   * the socket won't end with its credential.
   */
  admit(request: Request, connection?: ConnectionInfo): Promise<Admission<Claims> | Refusal>;
  /**
   * Calls `onEnd` once when the credential behind a connection expires or is revoked, here or by another
   * process. Call the returned function when the connection has closed. Throws an `Error` when the store
   * doesn't receive revocations by other processes.
   *
   * @example
   * const unfollow = gate.follow(identity, ({ code, reason }) => socket.close(code, reason));
   * socket.on("close", unfollow);
   */
  follow(identity: Identity<Claims>, onEnd: (close: Close) => void): () => void;
  /**
   * Ends a user's session, everything of a user, or a visitor: open connections, unused tickets, and the right
   * to new ones. `store_unavailable` when only this process knows. Throws a `TypeError` for what is no id.
   *
   * @example
   * await gate.revoke({ user: session.userId, session: session.id });
   */
  revoke(
    target:
      | { readonly user: string; readonly session?: string | undefined }
      | { readonly visitor: string },
  ): Promise<{ readonly ok: true } | Refusal>;
  /** Closes the store. */
  close(): Promise<void>;
}

/** What the other rooms of the house use of a gate. */
export interface GateParts {
  readonly authenticator: Authenticator;
  /** Left out: users have no cookie. */
  readonly userSessions: UserSessions | undefined;
  readonly tickets: Tickets;
  readonly revocations: Revocations;
  readonly live: Live;
  readonly store: TicketStore;
  readonly policy: RequestPolicy;
  readonly clock: Clock;
  readonly log: Log;
  readonly randomBytes: (length: number) => Uint8Array;
  admit(incoming: Incoming): Promise<Admission | Refusal>;
  handle(incoming: Incoming): Response | Promise<Response>;
}

const parts = new WeakMap<object, GateParts>();

/** The parts of a gate. Throws a `TypeError` for anything that `createGate` didn't make. */
export function partsOf(gate: Gate<never> | Gate): GateParts {
  const found = typeof gate === "object" && gate !== null ? parts.get(gate) : undefined;
  if (!found) throw new TypeError("A gate is required, as createGate returns it");
  return found;
}

/**
 * Makes a gate. Throws a `TypeError` or `RangeError` that names the option for anything that can't be used.
 *
 * @example
 * const gate = createGate({
 *   users: { secret: process.env.JWT_SECRET! },
 *   visitors: { secret: process.env.SESSION_SECRET! },
 * });
 */
export function createGate<Claims = unknown>(options: GateOptions<Claims>): Gate<Claims> {
  const clock = requireMethods(options.clock ?? systemClock, "clock", [
    "nowMs",
    "monotonicMs",
    "every",
    "after",
  ]);
  for (const name of ["log", "randomBytes"] as const) {
    if (options[name] !== undefined && typeof options[name] !== "function") {
      throw new TypeError(`Option ${name} must be a function`);
    }
  }
  const log = options.log ?? consoleLog(clock);
  const randomBytes =
    options.randomBytes ?? ((length) => crypto.getRandomValues(new Uint8Array(length)));
  const store = requireMethods(options.store ?? memoryTicketStore({ clock }), "store", [
    "put",
    "take",
    "revoke",
    "isRevoked",
    "close",
  ]);
  const basePath = requireBasePath(options.basePath ?? BASE_PATH);
  const policy = { ...readPolicy(options, basePath), onSuspicion: createSuspicionLog(log) };
  const live = createLive({ clock });
  const revocations = createRevocations({ store, live, clock, log });
  const visitors = readVisitors(options, { publicPath: publicPathOf(policy), clock, randomBytes });
  const users = readUsers(options.users, { clock, log });
  if (options.userSessions && typeof users !== "function") {
    throw new TypeError("Option userSessions needs users with a secret or a jwksUrl");
  }
  const userSessions =
    options.userSessions &&
    createUserSessions({
      ...requireSecrets(options.userSessions, "userSessions"),
      publicPath: publicPathOf(policy),
      clock,
    });
  const ticketsPerMinute = requireWhole(options.ticketsPerMinute ?? 60, "ticketsPerMinute", {
    least: 0,
    most: 1_000_000,
  });
  const authenticator = createAuthenticator({
    users,
    visitors,
    userSessions,
    revocations,
    visitsPerMinute: ticketsPerMinute,
    clock,
    log,
  });
  const tickets = createTickets({
    store,
    ttlMs: requireWhole(options.ticketTtlMs ?? 30_000, "ticketTtlMs", {
      least: 1_000,
      most: 300_000,
    }),
    limit: createRateLimit<string>({
      allowed: ticketsPerMinute,
      windowMs: 60_000,
      clock,
    }),
    clock,
    log,
    randomBytes,
  });
  const handle = createGateRoutes({
    basePath,
    authenticator,
    tickets,
    visitors,
    userSessions,
    revocations,
    clock,
    log,
    usersHaveCookies: typeof users !== "function",
  });
  const admitIncoming = (incoming: Incoming) =>
    admit(incoming, { authenticator, tickets, revocations });

  const gate: Gate<Claims> = {
    basePath,
    async fetch(request, connection) {
      const read = readRequest(request, policy, connection);
      if (!read.ok) return refusalResponse(read);
      const { incoming } = read;
      const isOwn = incoming.url.pathname.startsWith(`${basePath}/`);
      return isOwn ? handle(incoming) : refusalResponse(refuse("not_found"), headersFor(incoming));
    },
    issue: async ({ purpose, ...credential }) =>
      tickets.issue(toIdentity(credential, clock.nowMs()), purpose),
    async redeem(ticket, { purpose } = {}) {
      const redeemed = (await revocations.areFollowed())
        ? await tickets.redeem(ticket, purpose)
        : refuse("store_unavailable");
      return redeemed.ok ? { ok: true, identity: redeemed.identity as Identity<Claims> } : redeemed;
    },
    async admit(request, connection) {
      const read = readRequest(request, policy, connection);
      if (!read.ok) return read;
      return (await admitIncoming(read.incoming)) as Admission<Claims> | Refusal;
    },
    follow(identity, onEnd) {
      requireFeed(store);
      const connection = {
        identity,
        key: identityKey(identity),
        end(close: Close) {
          live.remove(connection);
          // A throw would leave the other connections open.
          try {
            onEnd(close);
          } catch (error) {
            log("error", "socket_failed", { ...identityFields(identity), code: faultCode(error) });
          }
        },
      };
      live.add(connection);
      return () => live.remove(connection);
    },
    async revoke(target) {
      if (typeof target !== "object" || target === null) {
        throw new TypeError("A user or a visitor is required");
      }
      if ("visitor" in target) {
        if (!isVisitorId(target.visitor)) throw new TypeError("Option visitor must be an id");
        return revocations.endAll({ kind: "visitor", id: target.visitor });
      }
      const { user, session } = target;
      if (!isUserId(user)) throw new TypeError("Option user must be an id");
      if (session !== undefined && !isLine(session, MAX_SESSION_LENGTH)) {
        throw new TypeError(
          `Option session must be a string of 1 to ${MAX_SESSION_LENGTH} characters`,
        );
      }
      return session === undefined
        ? revocations.endAll({ kind: "user", id: user })
        : revocations.endSession({ id: user, session });
    },
    async close() {
      live.close();
      await store.close();
    },
    [Symbol.asyncDispose]: () => gate.close(),
  };
  parts.set(gate, {
    authenticator,
    userSessions,
    tickets,
    revocations,
    live,
    store,
    policy,
    clock,
    log,
    randomBytes,
    admit: admitIncoming,
    handle,
  });
  return gate;
}

/** Throws when sign-outs by other processes would go unnoticed. */
export function requireFeed(store: TicketStore): void {
  if (store.revocations !== "unavailable") return;
  throw new Error(
    "This gate's store doesn't receive the sign-outs of other processes, so sockets would outlive them: use openRedis of ws-ticket/bun",
  );
}

function consoleLog(clock: Clock): Log {
  return createLog({ level: "warn", clock, write: (line) => console.log(line.trimEnd()) });
}

function readUsers<Claims>(
  users: UserOptions<Claims>,
  { clock, log }: { clock: Clock; log: Log },
): Parameters<typeof createAuthenticator>[0]["users"] {
  if (typeof users === "function") return { prove: users };
  if (typeof users !== "object" || users === null) {
    throw new TypeError(
      "Option users must be a function, or have a secret, a jwksUrl or publicKeys",
    );
  }
  const { secret, jwksUrl, publicKeys, issuer, audience, userClaim } = users;
  if ([secret, jwksUrl, publicKeys].filter((one) => one !== undefined).length !== 1) {
    throw new TypeError("Option users must have either a secret, a jwksUrl or publicKeys");
  }
  for (const [name, value] of Object.entries({ issuer, userClaim })) {
    if (value !== undefined && !isNonEmpty(value)) {
      throw new TypeError(`Option users.${name} must be a string`);
    }
  }
  if (audience !== undefined && !isAudience(audience)) {
    throw new TypeError("Option users.audience must be a string, or a list of strings");
  }
  return createTokenVerifier({ keys: readKeys(users), issuer, audience, userClaim, clock, log });
}

function readKeys(users: Exclude<UserOptions, ProveUser>): TokenKeys {
  const { secret, jwksUrl, publicKeys, allowHttp = false } = users;
  if (jwksUrl !== undefined) {
    return { jwksUrl: requireUrl(jwksUrl, "users.jwksUrl", { allowHttp: allowHttp === true }) };
  }
  if (publicKeys === undefined) {
    return requireSecrets({ secret, previousSecret: users.previousSecret }, "users");
  }
  const fault = keySetFault(publicKeys);
  if (fault) throw new TypeError(`Option users.publicKeys ${fault}`);
  return { publicKeys };
}

function isNonEmpty(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

function isAudience(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 && value.every(isNonEmpty) : isNonEmpty(value);
}

function readVisitors(
  { visitors }: Pick<GateOptions, "visitors">,
  parts: { publicPath: string; clock: Clock; randomBytes: (length: number) => Uint8Array },
): { readonly [scope in Scope]?: VisitorSessions } {
  if (!visitors) return {};
  const options = { ...requireSecrets(visitors, "visitors"), ...parts };
  return {
    site: createVisitorSessions(options),
    ...(visitors.embedded && { embed: createVisitorSessions({ ...options, kind: "embed" }) }),
  };
}

function readPolicy(options: GateOptions, basePath: string): RequestPolicy {
  const { visitors, userSessions } = options;
  const { origins, publicUrl, trustProxy = 0, strictTransport } = options;
  if (origins !== undefined && !(Array.isArray(origins) && origins.every(isOrigin))) {
    throw new TypeError("Option origins must be exact origins such as https://example.com");
  }
  const isKnown = typeof strictTransport === "string" && isStrictTransport(strictTransport);
  if (strictTransport !== undefined && strictTransport !== false && !isKnown) {
    throw new TypeError("Option strictTransport must be like max-age=31536000, or false");
  }
  return {
    scopes: new Set<Scope>([
      "site",
      ...(visitors?.embedded ? (["embed"] as const) : []),
      ...(userSessions ? (["inbox"] as const) : []),
    ]),
    basePath,
    allowed: origins && new Set(origins),
    publicUrl: publicUrl === undefined ? undefined : requirePublicUrl(publicUrl),
    trustProxy: requireWhole(trustProxy, "trustProxy", { least: 0, most: 10 }),
    secureHeaders: secureHeaders(strictTransport),
  };
}

/** What to set, by what requests look like. */
const ADVICE: Readonly<Record<Suspicion, { variable: string; note: string }>> = {
  proxy: {
    variable: "TRUST_PROXY",
    note: "Requests come through a proxy on this machine, and no address is told from another: set TRUST_PROXY=1, or trustProxy: 1",
  },
  public_url: {
    variable: "PUBLIC_URL",
    note: "A page of this server's own was refused, whose origin isn't the expected one: set PUBLIC_URL to the URL that browsers see, or publicUrl",
  },
};

/** Warns of each suspicion once. */
function createSuspicionLog(log: Log): (suspicion: Suspicion, origins?: Origins) => void {
  const known = new Set<Suspicion>();
  return (suspicion, origins) => {
    if (known.has(suspicion)) return;
    known.add(suspicion);
    log("warn", "setting_warning", {
      ...ADVICE[suspicion],
      ...(origins && { origin: origins.seen, expected: origins.expected }),
    });
  };
}

function isOrigin(value: unknown): boolean {
  return typeof value === "string" && isExactOrigin(value);
}

function requirePublicUrl(value: string | URL): URL {
  const url = requireUrl(value, "publicUrl");
  const fault = publicUrlFault(url);
  if (fault === undefined) return url;
  throw new TypeError(`Option publicUrl ${fault}`);
}

function requireBasePath(basePath: unknown): string {
  if (isBasePath(basePath)) return basePath;
  throw new TypeError("Option basePath must be a path such as /api/auth, without a trailing slash");
}
