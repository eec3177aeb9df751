import { clientAddress, isLoopbackAddress, limitKey } from "./address.ts";
import { RESPONSE_HEADERS } from "./headers.ts";
import {
  isAllowedOrigin,
  isSecure,
  type OriginPolicy,
  ownOrigin,
  pathBelow,
  seemsOwn,
} from "./origin.ts";
import { type Refusal, refuse } from "./refusal.ts";
import { readScope, type Scope, type ScopePolicy } from "./scope.ts";
import { parseUrl } from "./url.ts";

/** How requests are read. */
export interface RequestPolicy extends OriginPolicy, ScopePolicy {
  /** Proxies whose `X-Forwarded-For` counts. */
  readonly trustProxy: number;
  /** Headers of every response over https. */
  readonly secureHeaders: Readonly<Record<string, string>>;
  /** Called for what looks like a setting that is missing. */
  readonly onSuspicion?: ((suspicion: Suspicion, origins?: Origins) => void) | undefined;
}

/** A setting that seems to be missing, from what requests look like. */
export type Suspicion =
  /** Requests come from this machine with `X-Forwarded-For`, and no proxy is trusted. */
  | "proxy"
  /** A page of the server's own was refused: its origin isn't the one that the server has. */
  | "public_url";

/** The origin of a page that was refused, and the one that isn't. */
export interface Origins {
  readonly seen: string;
  readonly expected: string;
}

/** What the runtime knows of a request's connection. */
export interface ConnectionInfo {
  /** The address of the other end; limits per address need it. A getter is read only when a limit is checked. */
  readonly socketAddress?: string | undefined;
}

/** A request, read once. */
export class Incoming {
  /** Replaced by a copy where finding out the body's length has used it up. */
  request: Request;
  /** Its path below the server's own, without the prefix of its scope, where the route is the same in every scope. */
  readonly url: URL;
  readonly scope: Scope;
  readonly policy: RequestPolicy;
  /** Whether the browser's connection is encrypted. */
  readonly isSecure: boolean;
  readonly #connection: ConnectionInfo;
  /** Kept: finding it out takes time. */
  #address: string | undefined | null = null;

  constructor(request: Request, url: URL, policy: RequestPolicy, connection: ConnectionInfo) {
    const { scope, path } = readScope(url.pathname, policy);
    if (path !== url.pathname) url.pathname = path;
    this.request = request;
    this.url = url;
    this.scope = scope;
    this.policy = policy;
    this.isSecure = isSecure(url, policy);
    this.#connection = connection;
  }

  /** Where the page that sent it comes from. */
  get origin(): "none" | "allowed" | "foreign" {
    const origin = this.request.headers.get("origin");
    if (origin === null) return "none";
    if (isAllowedOrigin(this.request, this.url, this.policy)) return "allowed";
    if (seemsOwn(this.request, this.url, this.policy)) {
      const expected = ownOrigin(this.url, this.policy) ?? "none";
      this.policy.onSuspicion?.("public_url", { seen: origin, expected });
    }
    return "foreign";
  }

  /**
   * Whether the request is from a page of the server's own. A cookie that browsers would send to others, too, or
   * that stands for a user, counts only then. Browsers leave `Origin` out when a page reads from its own server.
   */
  get isOwnPage(): boolean {
    const { headers } = this.request;
    const origin = headers.get("origin");
    const site = headers.get("sec-fetch-site");
    if (origin === null) return site === "same-origin";
    return site !== "cross-site" && origin === ownOrigin(this.url, this.policy);
  }

  /** The client's network address, where it is known. */
  get address(): string | undefined {
    if (this.#address === null) {
      this.#address = clientAddress(this.request, this.#connection, this.policy.trustProxy);
    }
    return this.#address;
  }

  /** The key for limits per address; `undefined` where there are none. */
  get limitKey(): string | undefined {
    return limitKey(this.address);
  }
}

/**
 * Reads a request; `malformed_request` when it has no usable URL, `not_found` when its path isn't below the
 * server's own.
 */
export function readRequest(
  request: Request,
  policy: RequestPolicy,
  connection: ConnectionInfo = {},
): { readonly ok: true; readonly incoming: Incoming } | Refusal {
  const target = parseUrl(request);
  if (!target.ok) return target;
  const { url } = target;
  const path = pathBelow(url, policy);
  if (path === undefined) return refuse("not_found");
  if (path !== url.pathname) url.pathname = path;
  if (policy.trustProxy === 0 && policy.onSuspicion && request.headers.has("x-forwarded-for")) {
    // Read here and nowhere else: finding out an address takes time.
    const { socketAddress } = connection;
    if (socketAddress !== undefined && isLoopbackAddress(socketAddress)) {
      policy.onSuspicion("proxy");
    }
  }
  return { ok: true, incoming: new Incoming(request, url, policy, connection) };
}

/** Which methods a route lets other allowed origins use (CORS), and whether with cookies. */
export interface Sharing {
  readonly methods: string;
  readonly credentials: boolean;
}

/** How long a browser may keep the response to a preflight, in seconds. */
const PREFLIGHT_MAX_AGE_SECONDS = 600;

/** The headers of a response: what every response has, and for a shared route what lets allowed origins read it. */
export function headersFor(
  incoming: Incoming,
  sharing?: Sharing,
): Readonly<Record<string, string>> {
  const always = incoming.isSecure ? incoming.policy.secureHeaders : RESPONSE_HEADERS;
  if (!sharing) return always;
  if (incoming.origin !== "allowed") return { ...always, Vary: "Origin" };
  return {
    ...always,
    Vary: "Origin",
    "Access-Control-Allow-Origin": incoming.request.headers.get("origin") as string,
    "Access-Control-Expose-Headers": "Retry-After",
    ...(sharing.credentials && { "Access-Control-Allow-Credentials": "true" }),
  };
}

/** The response to a CORS preflight of an allowed origin; `undefined` for any other request. */
export function preflightResponse(incoming: Incoming, sharing: Sharing): Response | undefined {
  const { method, headers } = incoming.request;
  const isPreflight = method === "OPTIONS" && headers.has("access-control-request-method");
  if (!isPreflight || incoming.origin !== "allowed") return undefined;
  return new Response(null, {
    status: 204,
    headers: {
      ...headersFor(incoming, sharing),
      "Access-Control-Allow-Methods": sharing.methods,
      "Access-Control-Allow-Headers": "Authorization,Content-Type",
      "Access-Control-Max-Age": String(PREFLIGHT_MAX_AGE_SECONDS),
    },
  });
}

/** A JSON response. */
export function jsonResponse(body: unknown, headers: Readonly<Record<string, string>>): Response {
  return new Response(JSON.stringify(body), {
    headers: { ...headers, "Content-Type": "application/json" },
  });
}

/** A response without a body: 204. */
export function emptyResponse(headers: Readonly<Record<string, string>>): Response {
  return new Response(null, { status: 204, headers });
}
