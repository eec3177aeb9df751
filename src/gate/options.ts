import { utf8 } from "../lib/encoding.ts";
import { isLoopback } from "../request/origin.ts";

/** Shortest secret, in bytes: the output of the shortest hash that is used with it (RFC 7518 section 3.2). */
export const MIN_SECRET_BYTES = 32;

/** What is wrong with a secret; `undefined` for a good one. */
export function secretFault(secret: Uint8Array): string | undefined {
  if (secret.length < MIN_SECRET_BYTES) return `must be at least ${MIN_SECRET_BYTES} bytes`;
  if (new Set(secret).size === 1) return "must be random, not one byte repeated";
  return undefined;
}

/**
 * What is wrong with the URL of a server that is trusted; `undefined` for https, and for http on loopback, or
 * anywhere with `allowHttp`.
 */
export function urlFault(url: URL | null, { allowHttp = false } = {}): string | undefined {
  if (!url || !/^https?:$/.test(url.protocol)) return "must be an https URL";
  if (url.username || url.password) return "must not contain credentials";
  if (url.protocol === "http:" && !allowHttp && !isLoopback(url.hostname)) {
    return "must be https; plain http is allowed on loopback only";
  }
  return undefined;
}

/** A secret's bytes. Throws a `TypeError` or `RangeError` that names `option`. */
export function requireSecret(secret: unknown, option: string): Uint8Array<ArrayBuffer> {
  if (typeof secret !== "string" && !(secret instanceof Uint8Array)) {
    throw new TypeError(`Option ${option} must be a string or a Uint8Array`);
  }
  // A copy: the caller may overwrite its own.
  const bytes = typeof secret === "string" ? utf8(secret) : new Uint8Array(secret);
  const fault = secretFault(bytes);
  if (fault) throw new RangeError(`Option ${option} ${fault}`);
  return bytes;
}

/** A secret, and the one before it if there is any; throws as `requireSecret` does. */
export function requireSecrets(
  { secret, previousSecret }: { secret?: unknown; previousSecret?: unknown },
  option: string,
): { secret: Uint8Array<ArrayBuffer>; previousSecret?: Uint8Array<ArrayBuffer> } {
  return {
    secret: requireSecret(secret, `${option}.secret`),
    ...(previousSecret !== undefined && {
      previousSecret: requireSecret(previousSecret, `${option}.previousSecret`),
    }),
  };
}

/** A trusted URL. Throws a `TypeError` that names `option`. */
export function requireUrl(value: unknown, option: string, options?: { allowHttp: boolean }): URL {
  const url = typeof value === "string" || value instanceof URL ? parse(String(value)) : null;
  const fault = urlFault(url, options);
  if (fault) throw new TypeError(`Option ${option} ${fault}`);
  return url as URL;
}

function parse(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null;
}

/** A whole number. Throws a `TypeError` or `RangeError` that names `option`. */
export function requireWhole(
  value: unknown,
  option: string,
  { least, most }: { least: number; most: number },
): number {
  if (typeof value !== "number") throw new TypeError(`Option ${option} must be a number`);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`Option ${option} must be a whole number from ${least} to ${most}`);
  }
  return value;
}

/** An object with these methods. Throws a `TypeError` that names `option`. */
export function requireMethods<T>(value: T, option: string, methods: readonly (keyof T)[]): T {
  for (const method of methods) {
    if (typeof (value as T | null)?.[method] !== "function") {
      throw new TypeError(`Option ${option} must have a method ${String(method)}`);
    }
  }
  return value;
}
