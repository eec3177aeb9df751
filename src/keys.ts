import { readFileSync, statSync } from "node:fs";
import { type KeySet, keySetFault } from "./gate/jwks.ts";
import { faultCode } from "./lib/log.ts";

/** Longest file that is read, in bytes. */
const MAX_BYTES = 256 * 1024;
/** One key or certificate of a PEM file (RFC 7468). */
const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[^-]*-----END \1-----/g;

/**
 * The public keys in a file: a JWKS (RFC 7517), or any number of public keys and certificates as PEM. Returns what
 * is wrong with it otherwise, without anything of what is in it.
 */
export function readPublicKeys(
  path: string,
): { readonly keys: KeySet } | { readonly fault: string } {
  let text: string;
  try {
    const file = statSync(path);
    if (!file.isFile() || file.size > MAX_BYTES)
      return { fault: "must be a file of 256 KB at most" };
    text = readFileSync(path, "utf8");
  } catch (error) {
    return { fault: `can't be read: ${faultCode(error)}` };
  }
  // Here, and not for all: it takes a tenth of the time to start.
  const { createPublicKey } = process.getBuiltinModule("node:crypto");
  const toJwk = (pem: string) =>
    createPublicKey(pem).export({ format: "jwk" }) as Record<string, unknown>;
  if (text.includes("PRIVATE KEY-----")) return { fault: "must have no private and no secret key" };
  try {
    const keys = text.includes("-----BEGIN ")
      ? { keys: [...text.matchAll(BLOCK)].map(([block]) => toJwk(block)) }
      : (JSON.parse(text) as KeySet);
    const fault = keySetFault(keys);
    if (fault) return { fault };
    for (const key of keys.keys) createPublicKey({ key, format: "jwk" });
    return { keys };
  } catch {
    return { fault: "must be a JWKS, or public keys or certificates as PEM" };
  }
}
