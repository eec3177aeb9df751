import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import { isStrictTransport, secureHeaders } from "../request/headers.ts";
import type { RequestPolicy } from "../request/incoming.ts";
import { isBasePath, isExactOrigin, publicUrlFault } from "../request/origin.ts";
import type { Scope } from "../request/scope.ts";
import type { createAuthenticator, ProveUser } from "./authenticate.ts";
import type { SigningSecrets } from "./hmac.ts";
import { type KeySet, keySetFault } from "./jwks.ts";
import { requireSecrets, requireUrl, requireWhole } from "./options.ts";
import type { TicketStore } from "./store.ts";
import { createTokenVerifier, type TokenKeys } from "./token.ts";
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

export function readUsers<Claims>(
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

export function readVisitors(
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

/**
 * What tickets are marked with: a secret that other processes on the same store have, too, and the issuer's before
 * others, which functions that only issue have. Without any, one of this process alone.
 */
export function readTicketSecrets<Claims>({
  users,
  visitors,
  userSessions,
}: GateOptions<Claims>): SigningSecrets {
  if (typeof users === "object" && users.secret !== undefined) {
    return requireSecrets(users, "users");
  }
  if (visitors) return requireSecrets(visitors, "visitors");
  if (userSessions) return requireSecrets(userSessions, "userSessions");
  return { secret: crypto.getRandomValues(new Uint8Array(32)) };
}

export function readPolicy(options: GateOptions, basePath: string): RequestPolicy {
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

function isOrigin(value: unknown): boolean {
  return typeof value === "string" && isExactOrigin(value);
}

function requirePublicUrl(value: string | URL): URL {
  const url = requireUrl(value, "publicUrl");
  const fault = publicUrlFault(url);
  if (fault === undefined) return url;
  throw new TypeError(`Option publicUrl ${fault}`);
}

export function requireBasePath(basePath: unknown): string {
  if (isBasePath(basePath)) return basePath;
  throw new TypeError("Option basePath must be a path such as /api/auth, without a trailing slash");
}
