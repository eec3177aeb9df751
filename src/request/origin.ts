/** Which web pages may open sockets and call the API with a visitor's cookie. */
export interface OriginPolicy {
  /** Exact origins; when given, these and no others. */
  readonly allowed?: ReadonlySet<string> | undefined;
  /** The server's URL as browsers see it, when a proxy stands in front. With a path, everything is below it. */
  readonly publicUrl?: URL | undefined;
}

/** Whether a host name is this machine's own: the only place where plain `http:` and `ws:` are accepted. */
export function isLoopback(hostname: string): boolean {
  return (
    hostname === "localhost" ||
    hostname === "[::1]" ||
    hostname === "::1" ||
    /^127(\.\d{1,3}){3}$/.test(hostname)
  );
}

/** Whether a string is an origin as browsers send it: scheme, host and port, without a pattern. */
export function isExactOrigin(value: string): boolean {
  // To the parser an asterisk is a letter like any other.
  return /^https?:[^*]+$/.test(value) && URL.canParse(value) && new URL(value).origin === value;
}

/**
 * The server's own origin. Taken from the request only where an attacker can't choose it by pointing a name
 * at this address (DNS rebinding): on loopback, and behind a certificate.
 */
export function ownOrigin(requestUrl: URL, { publicUrl }: OriginPolicy): string | undefined {
  if (publicUrl) return publicUrl.origin;
  if (requestUrl.protocol === "https:" || isLoopback(requestUrl.hostname)) return requestUrl.origin;
  return undefined;
}

/** The path below which everything is, without a slash at its end; empty for a server with a host of its own. */
export function publicPathOf({ publicUrl }: OriginPolicy): string {
  return publicUrl?.pathname.replace(/\/$/, "") ?? "";
}

/** Also outside the server's own path: whoever probes a process doesn't come through the proxy. */
const PROBE_PATHS = ["/healthz", "/readyz"];

/** The rest of a path below the server's own; `undefined` for one outside. */
export function pathBelow({ pathname }: URL, policy: OriginPolicy): string | undefined {
  const base = publicPathOf(policy);
  if (base === "" || PROBE_PATHS.includes(pathname)) return pathname;
  if (pathname === base) return "/";
  return pathname.startsWith(`${base}/`) ? pathname.slice(base.length) : undefined;
}

/** Whether a path can stand in front of all others: segments of unreserved characters (RFC 3986 section 2.3), none of dots alone. */
export function isBasePath(path: unknown): path is string {
  return typeof path === "string" && /^(?:\/(?!\.{1,2}(?:\/|$))[\w.~-]+)+$/.test(path);
}

/** What is wrong with a URL as the server's own, beside what is wrong with any URL that is trusted. */
export function publicUrlFault({ pathname, search, hash }: URL): string | undefined {
  const isGood = pathname === "/" || isBasePath(pathname.replace(/\/$/, ""));
  if (isGood && !search && !hash) return undefined;
  return "must be like https://example.com or https://example.com/chat, without query and fragment";
}

/** Whether the browser's connection is encrypted, so that cookies are `Secure` and have the `__Host-` prefix. */
export function isSecure(requestUrl: URL, { publicUrl }: OriginPolicy): boolean {
  return (publicUrl ?? requestUrl).protocol === "https:";
}

/**
 * Whether the request's `Origin` header (RFC 6454) is allowed. Compared as a string and never parsed, since a
 * parser would turn look-alikes into the real thing. `false` for a request without the header.
 */
export function isAllowedOrigin(request: Request, requestUrl: URL, policy: OriginPolicy): boolean {
  const origin = request.headers.get("origin");
  if (origin === null) return false;
  const own = ownOrigin(requestUrl, policy);
  if (origin === own && request.headers.get("sec-fetch-site") === "cross-site") return false;
  return policy.allowed ? policy.allowed.has(origin) : origin === own;
}

/**
 * Whether a page that isn't allowed seems to be one of the server's own, for a warning: with `publicUrl`, another
 * scheme or port of its host; with neither that nor a list, what the browser says (`Sec-Fetch-Site`), or an origin
 * with the request's own host.
 */
export function seemsOwn(request: Request, requestUrl: URL, policy: OriginPolicy): boolean {
  const { allowed, publicUrl } = policy;
  const { headers } = request;
  const origin = headers.get("origin") ?? "";
  if (allowed) return false;
  if (publicUrl) return isExactOrigin(origin) && new URL(origin).hostname === publicUrl.hostname;
  if (headers.get("sec-fetch-site") === "same-origin") return isExactOrigin(origin);
  const { host } = requestUrl;
  return (
    ownOrigin(requestUrl, policy) === undefined &&
    [`https://${host}`, `http://${host}`].includes(origin)
  );
}
