import type { KeySet } from "../gate/jwks.ts";
import type { Clock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { fetchJson } from "../lib/fetch.ts";
import { faultCode } from "../lib/log.ts";
import { isLine } from "../lib/text.ts";
import { fault, good, reasonOf, type Report, warning } from "./report.ts";

const SUBJECT = "JWT_JWKS_URL";
/** Longest key set that the server reads, in bytes. */
const MAX_BYTES = 256 * 1024;
/** Shortest RSA key, in base64url characters of its modulus: 2,048 bits. */
const MIN_MODULUS = 342;

/** Fetches a key set as the server does, and says what is in it. */
export async function inspectKeys(url: URL, { clock }: { clock: Clock }): Promise<Report[]> {
  let response: { status: number; body: unknown };
  try {
    response = await fetchJson(url, {
      deadlineMs: DEPENDENCY_DEADLINE_MS,
      maxBytes: MAX_BYTES,
      clock,
    });
  } catch (error) {
    const code = faultCode(error);
    return [fault(SUBJECT, `can't be read: ${code}`, reasonOf(code))];
  }
  const { status, body } = response;
  const { keys } = (body ?? {}) as { keys?: unknown };
  if (status !== 200 || !Array.isArray(keys)) {
    const note = "A key set (RFC 7517) is expected there: 200, and a JSON object with keys";
    return [fault(SUBJECT, `answers ${status} without a key set`, note)];
  }
  const usable = keys.filter(isUsable);
  if (usable.length === 0) {
    return [
      fault(
        SUBJECT,
        `${keys.length} keys, none of them usable`,
        "RSA, EC or OKP keys for signatures are needed",
      ),
    ];
  }
  const reports = [good(SUBJECT, `reachable: ${usable.map(nameOf).join(", ")}`)];
  if (usable.some(({ kty, n }) => kty === "RSA" && String(n).length < MIN_MODULUS)) {
    reports.push(
      warning(
        SUBJECT,
        "an RSA key under 2,048 bits",
        "Its signatures can be forged, and are refused",
      ),
    );
  }
  return reports;
}

/** Says what is in a file of keys, which was read with the settings. */
export function inspectPublicKeys({ keys }: KeySet): Report[] {
  const names = (keys as readonly unknown[]).filter(isUsable).map(nameOf);
  return [good("JWT_PUBLIC_KEYS", `readable: ${names.join(", ")}`)];
}

interface Key {
  readonly kty: string;
  readonly kid?: unknown;
  readonly alg?: unknown;
  readonly crv?: unknown;
  readonly n?: unknown;
}

function isUsable(key: unknown): key is Key {
  if (typeof key !== "object" || key === null) return false;
  const { kty, use } = key as { kty?: unknown; use?: unknown };
  return ["RSA", "EC", "OKP"].includes(kty as string) && (use === undefined || use === "sig");
}

/** A key by what it says of itself: its algorithm, or its kind, and its id. */
function nameOf({ kty, alg, crv, kid }: Key): string {
  const [kind = kty] = [alg, crv].filter((value) => isLine(value, 20));
  return isLine(kid, 100) ? `${kind} (${kid})` : String(kind);
}
