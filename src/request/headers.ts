/** Headers of every response of the API: not cached, not sniffed, not framed, no referrer. */
export const RESPONSE_HEADERS: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/** For the host alone (RFC 6797): subdomains may have plain http of their own. */
const DEFAULT_STRICT_TRANSPORT = "max-age=31536000";

/** Headers of every response over https. `strictTransport`: the value of `Strict-Transport-Security`; `false`: none. */
export function secureHeaders(
  strictTransport: string | false = DEFAULT_STRICT_TRANSPORT,
): Readonly<Record<string, string>> {
  if (strictTransport === false) return RESPONSE_HEADERS;
  return { ...RESPONSE_HEADERS, "Strict-Transport-Security": strictTransport };
}

/** Whether a string is a value of `Strict-Transport-Security` (RFC 6797 section 6.1), its directives in their usual order. */
export function isStrictTransport(value: string): boolean {
  return /^max-age=\d{1,10}(?:; ?includeSubDomains)?(?:; ?preload)?$/i.test(value);
}
