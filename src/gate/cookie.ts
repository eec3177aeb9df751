import { fromBase64url, toBase64url, utf8 } from "../lib/encoding.ts";

/** Signs the values of one kind of cookie. */
export interface CookieSigner {
  /** The MAC of a text, in base64url. */
  mac(text: string): Promise<string>;
  /** Whether this secret has signed the text for this purpose. */
  isGenuine(text: string, mac: string): Promise<boolean>;
}

/** What a cookie is signed with. */
export interface CookieSecrets {
  secret: Uint8Array;
  /** Verifies what was signed before the secret was changed; nothing is signed with it. */
  previousSecret?: Uint8Array | undefined;
}

/**
 * Keys are derived for `purpose` and every MAC covers it, so that no other signature is valid here, and none of
 * these elsewhere.
 */
export function createCookieSigner(
  { secret, previousSecret }: CookieSecrets,
  purpose: string,
): CookieSigner {
  const keyPromise = deriveKey(secret, purpose);
  const previousPromise = previousSecret && deriveKey(previousSecret, purpose);
  const signed = (text: string) => utf8(`${purpose}|${text}`);
  return {
    async mac(text) {
      const mac = await crypto.subtle.sign("HMAC", await keyPromise, signed(text));
      return toBase64url(new Uint8Array(mac));
    },
    async isGenuine(text, mac) {
      const bytes = fromBase64url(mac);
      if (bytes?.length !== 32) return false;
      for (const key of [await keyPromise, await previousPromise]) {
        if (key && (await crypto.subtle.verify("HMAC", key, bytes, signed(text)))) return true;
      }
      return false;
    },
  };
}

/** HKDF (RFC 5869): a key for this purpose alone, whatever else the secret is used for. */
async function deriveKey(secret: Uint8Array, purpose: string): Promise<CryptoKey> {
  const root = await crypto.subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, [
    "deriveKey",
  ]);
  return crypto.subtle.deriveKey(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: utf8(purpose) },
    root,
    { name: "HMAC", hash: "SHA-256", length: 256 },
    false,
    ["sign", "verify"],
  );
}

/**
 * A cookie's name; over https with the prefix that ties it to exactly this host (RFC 6265bis section 4.1.3.2). With
 * that prefix its path is `/`, so that servers with paths of their own (`publicPath`) on one host get cookies of
 * different names.
 */
export function cookieName(name: string, secure: boolean, publicPath = ""): string {
  return `${secure ? "__Host-" : ""}${name}${publicPath.replaceAll("/", ".")}`;
}

/**
 * The value of the one cookie with exactly this name; `undefined` without it, and with two: there is no way to
 * tell which one an attacker has set (RFC 6265bis section 4.2.2).
 */
export function cookieValue(header: string | null, name: string): string | undefined {
  const text = header ?? "";
  const start = `${name}=`;
  let value: string | undefined;
  // Not by splitting: there may be thousands of others.
  for (let at = text.indexOf(start); at >= 0; at = text.indexOf(start, at + 1)) {
    if (!isFirstInPair(text, at)) continue;
    if (value !== undefined) return undefined;
    const end = text.indexOf(";", at);
    value = trimBlanks(text.slice(at, end < 0 ? undefined : end)).slice(start.length);
  }
  return value;
}

/** Whether nothing but blanks stands between the last semicolon and here. */
function isFirstInPair(text: string, at: number): boolean {
  let before = at - 1;
  while (before >= 0 && isBlank(text[before])) before--;
  return before < 0 || text[before] === ";";
}

function isBlank(char: string | undefined): boolean {
  return char === " " || char === "\t";
}

/**
 * Only space and tab; other white space is part of a name. Not a regular expression: on long runs of blanks
 * those take quadratic time.
 */
function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text[start])) start++;
  while (end > start && isBlank(text[end - 1])) end--;
  return text.slice(start, end);
}
