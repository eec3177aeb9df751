/** Which web pages may open sockets and call the API with a visitor's cookie. */
export interface OriginPolicy {
  /** Exact origins; when given, these and no others. */
  readonly allowed?: ReadonlySet<string>;
  /** What browsers see when a proxy stands in front. */
  readonly publicUrl?: URL;
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

/**
 * The server's own origin. Taken from the request only where no attacker can choose it by pointing a name
 * of his at this address (DNS rebinding): on loopback, and behind a certificate.
 */
export function ownOrigin(requestUrl: URL, { publicUrl }: OriginPolicy): string | undefined {
  if (publicUrl) return publicUrl.origin;
  if (requestUrl.protocol === "https:" || isLoopback(requestUrl.hostname)) return requestUrl.origin;
  return undefined;
}

/** Whether the browser's connection is encrypted, so that cookies are `Secure` and carry the `__Host-` prefix. */
export function isSecure(requestUrl: URL, { publicUrl }: OriginPolicy): boolean {
  return (publicUrl ?? requestUrl).protocol === "https:";
}

/**
 * Whether a request's `Origin` header (RFC 6454) is allowed: compared as a string, never parsed, because a
 * parser would turn look-alikes into the real thing. A request without the header is the caller's matter.
 */
export function isAllowedOrigin(request: Request, requestUrl: URL, policy: OriginPolicy): boolean {
  const origin = request.headers.get("origin");
  const own = ownOrigin(requestUrl, policy);
  if (origin === own && request.headers.get("sec-fetch-site") === "cross-site") return false;
  return origin !== null && (policy.allowed ? policy.allowed.has(origin) : origin === own);
}
