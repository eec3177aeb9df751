const encoder = new TextEncoder();

/** UTF-8 bytes of a string. */
export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text) as Uint8Array<ArrayBuffer>;
}

/** Base64url without padding (RFC 4648 section 5). */
export function toBase64url(bytes: Uint8Array): string {
  if (bytes.toBase64) return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}

/** Bytes of a canonical, unpadded base64url string; `undefined` for any other spelling of the same bytes. */
export function fromBase64url(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!isCanonicalBase64url(text)) return undefined;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text, { alphabet: "base64url" });
  return Uint8Array.from(
    atob(text.replaceAll("-", "+").replaceAll("_", "/")),
    (char) => char.codePointAt(0) as number,
  );
}

/** Whether a string is base64url as an encoder writes it: its alphabet, no padding, no spare bits set. */
export function isCanonicalBase64url(text: string): boolean {
  if (!/^[\w-]*$/.test(text)) return false;
  const spare = text.length % 4;
  if (spare === 0) return true;
  if (spare === 1) return false;
  return spare === 2 ? /[AQgw]$/.test(text) : /[AEIMQUYcgkosw048]$/.test(text);
}

/** The hash of Bun, where that is the runtime. */
const bun: { CryptoHasher: SyncHasher } | undefined = Reflect.get(globalThis, "Bun");

interface SyncHasher {
  hash(algorithm: "sha256", text: string, encoding: "hex"): string;
}

/**
 * SHA-256 of a string in lower-case hex. Synchronous where the runtime allows it (a hop to WebCrypto's thread
 * costs more than the hash), else through WebCrypto.
 */
export function sha256Hex(text: string): string | Promise<string> {
  if (bun) return bun.CryptoHasher.hash("sha256", text, "hex");
  return crypto.subtle
    .digest("SHA-256", utf8(text))
    .then((digest) =>
      Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    );
}

/** Whether two secrets are equal, in constant time. */
export async function isSameSecret(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([sha256Hex(one), sha256Hex(other)]);
  let difference = 0;
  for (let at = 0; at < a.length; at++) difference |= a.charCodeAt(at) ^ b.charCodeAt(at);
  return difference === 0;
}
