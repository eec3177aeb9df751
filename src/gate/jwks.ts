import type { CryptoKey, JSONWebKeySet } from "jose";
import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson } from "../lib/fetch.ts";
import { faultCode, type Log } from "../lib/log.ts";

/** The key server is unavailable, and what it said before doesn't settle the matter. */
export class KeysUnavailableError extends Error {
  override name = "KeysUnavailableError";
  /** Whether there are keys, and none that the token names. */
  readonly isKeyUnknown: boolean;

  constructor({ isKeyUnknown = false } = {}) {
    super();
    this.isKeyUnknown = isKeyUnknown;
  }
}

/** What of a token's header names its key. */
export type KeyHeader = { readonly alg: string; readonly kid?: string };

/** Finds a token's key: the same object for as long as it is in the set. */
export type FindKey = (header: KeyHeader) => Promise<CryptoKey>;

/** Loaded with the first token, so that starting doesn't wait for it. */
let errors: Promise<typeof import("jose/errors")> | undefined;

/** Whether an error says that no key fits. */
async function isNoMatch(error: unknown): Promise<boolean> {
  const { JWKSNoMatchingKey } = await (errors ??= import("jose/errors"));
  return error instanceof JWKSNoMatchingKey;
}

/** Keys older than this are fetched again, in milliseconds. */
const FRESH_MS = 600_000;
/** Minimum interval between fetches for an unknown `kid`, in milliseconds. */
const COOLDOWN_MS = 30_000;
/** Pause after a failed fetch, in milliseconds. */
const RETRY_MS = 5_000;
/** While the key server is away its last keys are good for this long, in milliseconds. */
const STALE_MS = 3_600_000;
/** Withdrawn keys whose ids are remembered. */
const MAX_WITHDRAWN = 100;
/** Longest key set that is read, in bytes. */
const MAX_KEYS_BYTES = 256 * 1024;

/**
 * Keys of a JWKS (RFC 7517) at `url`. Concurrent fetches are shared, and a failure is remembered, so that an
 * outage costs the key server one request per `RETRY_MS` and not one per token.
 */
export function remoteKeys(options: { url: URL; clock: Clock; log: Log }): FindKey {
  const { url, clock, log } = options;
  let known: { find: FindKey; ids: ReadonlySet<unknown>; atMs: number } | undefined;
  /** Ids of keys that were in an earlier set, and aren't in this one. */
  const withdrawn = new Set<unknown>();
  let failedAtMs = Number.NEGATIVE_INFINITY;
  let fetching: Promise<void> | undefined;

  async function fetchKeys(): Promise<void> {
    const startedAtMs = clock.monotonicMs();
    try {
      const response = await fetchJson(url, {
        headers: { Accept: "application/jwk-set+json, application/json" },
        deadlineMs: DEPENDENCY_DEADLINE_MS,
        maxBytes: MAX_KEYS_BYTES,
        clock,
      });
      if (response.status !== 200) throw new KeysUnavailableError();
      const { createLocalJWKSet } = await import("jose/jwks/local");
      const set = response.body as JSONWebKeySet;
      const find = createLocalJWKSet(set);
      const ids = new Set<unknown>(set.keys.map(({ kid }) => kid));
      for (const id of known?.ids ?? []) withdrawn.add(id);
      for (const id of ids) withdrawn.delete(id);
      if (withdrawn.size > MAX_WITHDRAWN) withdrawn.clear();
      known = { find, ids, atMs: clock.monotonicMs() };
      failedAtMs = Number.NEGATIVE_INFINITY;
      log("debug", "keys_read", { durationMs: Math.round(known.atMs - startedAtMs) });
    } catch (error) {
      failedAtMs = clock.monotonicMs();
      const durationMs = Math.round(failedAtMs - startedAtMs);
      log("error", "keys_unavailable", { code: faultCode(error), durationMs });
    } finally {
      fetching = undefined;
    }
  }

  function ageMs(): number {
    return known ? clock.monotonicMs() - known.atMs : Number.POSITIVE_INFINITY;
  }

  /** Makes the keys no older than `maxAgeMs`, unless the key server has just failed. */
  async function refresh(maxAgeMs: number): Promise<void> {
    if (ageMs() < maxAgeMs || clock.monotonicMs() - failedAtMs < RETRY_MS) return;
    fetching ??= fetchKeys();
    await fetching;
  }

  return async (header) => {
    const before = known;
    await refresh(FRESH_MS);
    if (!known || ageMs() >= STALE_MS) throw new KeysUnavailableError();
    try {
      return await known.find(header);
    } catch (error) {
      if (!(await isNoMatch(error))) throw error;
      await refresh(COOLDOWN_MS);
      // An unknown key may well be a new one, while the key server is away and until the keys are read again.
      const mayBeNew = known === before && !withdrawn.has(header.kid);
      if (mayBeNew) throw new KeysUnavailableError({ isKeyUnknown: true });
      return known.find(header);
    }
  };
}

/** Public keys as a JWKS (RFC 7517) has them. */
export interface KeySet {
  readonly keys: readonly Readonly<Record<string, unknown>>[];
}

/** Shortest RSA key, in base64url characters of its modulus: 2,048 bits (RFC 7518 section 3.3). */
const MIN_MODULUS = 342;

/** What is wrong with keys that are to verify signatures; `undefined` for good ones. */
export function keySetFault(set: unknown): string | undefined {
  const { keys } = (set ?? {}) as { keys?: unknown };
  if (!Array.isArray(keys) || keys.length === 0) return "must have at least one public key";
  for (const key of keys as readonly (Readonly<Record<string, unknown>> | null)[]) {
    if (typeof key !== "object" || key === null) return "must be a JWKS with a list of keys";
    if (key.d !== undefined || key.kty === "oct" || key.k !== undefined) {
      return "must have no private and no secret key";
    }
    if (!["RSA", "EC", "OKP"].includes(String(key.kty))) return "must be RSA, EC or OKP keys";
    if (key.kty === "RSA" && String(key.n).length < MIN_MODULUS) {
      return "must have no RSA key under 2,048 bits";
    }
  }
  return undefined;
}

/** Keys that don't change. One without a `kid`, as from a PEM file, is good for tokens with any. */
export function localKeys({ keys }: KeySet): FindKey {
  const load = async () => {
    const { createLocalJWKSet } = await import("jose/jwks/local");
    const anonymous = keys.filter(({ kid }) => kid === undefined);
    const finder = (some: KeySet["keys"]) =>
      createLocalJWKSet({ keys: [...some] } as unknown as JSONWebKeySet);
    return { find: finder(keys), findAnonymous: finder(anonymous) };
  };
  let loading: ReturnType<typeof load> | undefined;
  return async (header) => {
    const { find, findAnonymous } = await (loading ??= load());
    try {
      return await find(header);
    } catch (error) {
      if (!(await isNoMatch(error)) || header.kid === undefined) throw error;
      return findAnonymous({ alg: header.alg });
    }
  };
}
