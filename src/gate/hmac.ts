import { toBase64url, utf8 } from "../lib/encoding.ts";

/** HMAC of a text under one secret, in base64url; synchronous where the runtime allows it. */
export type Hmac = (algorithm: string, text: string) => string | Promise<string>;

/** Hash functions by the algorithm of a JWS (RFC 7518 section 3.2). */
const HASHES: Readonly<Record<string, [web: string, bun: string]>> = {
  HS256: ["SHA-256", "sha256"],
  HS384: ["SHA-384", "sha384"],
  HS512: ["SHA-512", "sha512"],
};

/** The algorithms that a secret is good for. */
export const SECRET_ALGORITHMS: readonly string[] = Object.keys(HASHES);

interface BunHasher {
  copy(): BunHasher;
  update(text: string): BunHasher;
  digest(encoding: "base64url"): string;
}

interface BunHashing {
  CryptoHasher: new (hash: string, key: Uint8Array) => BunHasher;
}

const bun = Reflect.get(globalThis, "Bun") as BunHashing | undefined;

/** Keys are made once per algorithm. In Bun the hop to WebCrypto's thread would cost more than the hash. */
export function createHmac(secret: Uint8Array<ArrayBuffer>): Hmac {
  if (bun) {
    const { CryptoHasher } = bun;
    const keyed = new Map<string, BunHasher>();
    return (algorithm, text) => {
      let hasher = keyed.get(algorithm);
      if (!hasher) {
        hasher = new CryptoHasher(HASHES[algorithm]?.[1] ?? "", secret);
        keyed.set(algorithm, hasher);
      }
      return hasher.copy().update(text).digest("base64url");
    };
  }
  const keys = new Map<string, Promise<CryptoKey>>();
  return async (algorithm, text) => {
    let key = keys.get(algorithm);
    if (!key) {
      const name = { name: "HMAC", hash: HASHES[algorithm]?.[0] ?? "" };
      key = crypto.subtle.importKey("raw", secret, name, false, ["sign"]);
      keys.set(algorithm, key);
    }
    return toBase64url(new Uint8Array(await crypto.subtle.sign("HMAC", await key, utf8(text))));
  };
}

/** Whether two texts are equal, in a time that depends on their length alone. */
export function isSameText(one: string, other: string): boolean {
  if (one.length !== other.length) return false;
  let difference = 0;
  for (let at = 0; at < one.length; at++) difference |= one.charCodeAt(at) ^ other.charCodeAt(at);
  return difference === 0;
}

/** What is signed with. */
export interface SigningSecrets {
  secret: Uint8Array;
  /** Verifies what was signed before the secret was changed; nothing is signed with it. */
  previousSecret?: Uint8Array | undefined;
}

/** Signs texts for one purpose. */
export interface Signer {
  /** The MAC of a text, in base64url. */
  mac(text: string): Promise<string>;
  /** Whether this secret has signed the text for this purpose. */
  isGenuine(text: string, mac: string): Promise<boolean>;
}

/**
 * Keys are derived for `purpose` and every MAC covers it, so that no other signature is valid here, and none of
 * these elsewhere.
 */
export function createSigner({ secret, previousSecret }: SigningSecrets, purpose: string): Signer {
  const current = deriveHmac(secret, purpose);
  const previous = previousSecret && deriveHmac(previousSecret, purpose);
  const signed = (text: string) => `${purpose}|${text}`;
  return {
    mac: async (text) => (await current)("HS256", signed(text)),
    async isGenuine(text, mac) {
      for (const hmac of [current, previous]) {
        if (hmac && isSameText(await (await hmac)("HS256", signed(text)), mac)) return true;
      }
      return false;
    },
  };
}

/** HKDF (RFC 5869): a key for this purpose alone, whatever else the secret is used for. */
async function deriveHmac(secret: Uint8Array, purpose: string): Promise<Hmac> {
  const root = await crypto.subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, [
    "deriveBits",
  ]);
  const bits = await crypto.subtle.deriveBits(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: utf8(purpose) },
    root,
    256,
  );
  return createHmac(new Uint8Array(bits));
}
