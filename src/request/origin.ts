/** Which web pages may open sockets and call the API with a visitor's cookie. */
export interface OriginPolicy {
  /** Exact origins; when given, these and no others. */
  readonly allowed?: ReadonlySet<string> | undefined;
  /** The server's URL as browsers see it, when a proxy stands in front. */
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
 * Whether an origin that isn't allowed is that of the request's own host, while nothing says what the server's
 * own origin is: a proxy that hands the host on, and no `publicUrl`.
 */
export function isOwnHost(origin: string, requestUrl: URL, policy: OriginPolicy): boolean {
  if (policy.allowed || ownOrigin(requestUrl, policy) !== undefined) return false;
  return origin === `https://${requestUrl.host}` || origin === `http://${requestUrl.host}`;
}
