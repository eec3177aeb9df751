import type { Config } from "../config.ts";
import { CLOCK_TOLERANCE_SECONDS, MAX_TOKEN_LIFETIME_MS } from "../gate/claims.ts";
import { createTokenVerifier, MAX_TOKEN_LENGTH } from "../gate/token.ts";
import type { Clock } from "../lib/clock.ts";
import { fromBase64url } from "../lib/encoding.ts";
import { isLine } from "../lib/text.ts";
import type { TokenFault } from "../request/refusal.ts";
import { isUserId } from "../wire/ids.ts";
import { fault, good, type Report, warning } from "./report.ts";

/** Longest value of a claim that is shown, in characters. */
const MAX_SHOWN = 200;

/**
 * Says of a JWT, claim by claim, what the server of this configuration needs and finds: the last line is the
 * server's own verdict. Shows claims, and never the token.
 */
export async function explainToken(
  token: string,
  { config, clock }: { config: Config; clock: Clock },
): Promise<Report[]> {
  const [header, payload, , ...more] = token.split(".");
  const [head, claims] = [parse(header), parse(payload)];
  if (token.length > MAX_TOKEN_LENGTH) {
    return [fault("token", `${token.length} characters`, "The server reads 8,192 at most")];
  }
  if (!head || !claims || more.length > 0) {
    const note =
      "A JWT is three parts of base64url with points between them, the first two JSON objects";
    return [fault("token", "no JWT", note)];
  }
  const verdict = await verify(token, config, clock);
  const isByPrevious = verdict === "ok" && !(await isByCurrent(token, config, clock));
  return [
    ...explainHeader(head, verdict),
    ...(isByPrevious
      ? [warning("signature", "by JWT_SECRET_PREVIOUS", "Its issuer doesn't use JWT_SECRET yet")]
      : []),
    ...explainOrigin(claims, config),
    ...explainTimes(claims, clock.nowMs()),
    ...explainUser(claims, config),
    ...explainSession(claims),
    verdict === "ok"
      ? good("verdict", "the server accepts it")
      : fault("verdict", `the server refuses it: ${verdict}`, "The lines above say why"),
  ];
}

type Verdict = "ok" | "no_keys" | "keys_unavailable" | TokenFault;

async function verify(token: string, config: Config, clock: Clock): Promise<Verdict> {
  const { keys, issuer, audience, userClaim } = config;
  if (!keys) return "no_keys";
  const options = { keys, issuer, audience, userClaim, clock, log: () => {} };
  const verified = await createTokenVerifier(options)(token);
  if (verified.ok) return "ok";
  return verified.code === "keys_unavailable" ? "keys_unavailable" : (verified.fault ?? "claim");
}

/** Whether a good token is good without the secret that was changed, too. */
async function isByCurrent(token: string, config: Config, clock: Clock): Promise<boolean> {
  const { keys } = config;
  if (!keys || !("previousSecret" in keys)) return true;
  return (await verify(token, { ...config, keys: { secret: keys.secret } }, clock)) === "ok";
}

/** What a verdict before the claims says of the signature; any other one says that it is good. */
const SIGNATURES: { readonly [verdict in Verdict]?: readonly [found: string, note: string] } = {
  no_keys: ["not checked", "Set JWT_SECRET, JWT_JWKS_URL or JWT_PUBLIC_KEYS"],
  keys_unavailable: ["not checked", "JWT_JWKS_URL can't be read"],
  key_unknown: ["by an unknown key", "There is none with this kid and algorithm"],
  signature: ["wrong", "Another secret or key has signed it, or it was changed"],
  not_a_jwt: [
    "not in its only form",
    "No padding, no spare bits, no crit and no b64 in the header",
  ],
};

function explainHeader(head: Claims, verdict: Verdict): Report[] {
  const alg = show(head["alg"]);
  const typ = show(head["typ"]);
  if (verdict === "algorithm") {
    const note = "JWT_SECRET is for HS256, HS384 and HS512; keys are for RS, PS, ES and EdDSA";
    return [fault("alg", alg, note), good("typ", typ)];
  }
  if (verdict === "type") {
    const note =
      "An access token is needed (JWT, at+jwt or none), not an ID token or a refresh token";
    return [good("alg", alg), fault("typ", typ, note)];
  }
  const [found = "good", note] = SIGNATURES[verdict] ?? [];
  return [
    good("alg", alg),
    good("typ", typ),
    good("kid", show(head["kid"])),
    note === undefined ? good("signature", found) : fault("signature", found, note),
  ];
}

function explainOrigin(claims: Claims, { issuer, audience }: Config): Report[] {
  const iss = show(claims.iss);
  const aud = show(claims.aud);
  const audiences: unknown[] = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  return [
    issuer === undefined || claims.iss === issuer
      ? good("iss", issuer === undefined ? `${iss}, JWT_ISSUER isn't set` : iss)
      : fault("iss", `${iss}, JWT_ISSUER is ${issuer}`, "The two must be equal, letter by letter"),
    audience === undefined || audience.some((one) => audiences.includes(one))
      ? good("aud", audience === undefined ? `${aud}, JWT_AUDIENCE isn't set` : aud)
      : fault(
          "aud",
          `${aud}, JWT_AUDIENCE is ${audience.join(",")}`,
          "One of its values must be in it",
        ),
  ];
}

function explainTimes({ exp, nbf, iat }: Claims, nowMs: number): Report[] {
  const nowSeconds = nowMs / 1000;
  const isAhead = (time: unknown) =>
    typeof time === "number" && time > nowSeconds + CLOCK_TOLERANCE_SECONDS;
  const isNumber = (time: unknown) => time === undefined || typeof time === "number";
  const reports: Report[] = [];
  if (typeof exp !== "number") {
    reports.push(fault("exp", show(exp), "A number of seconds since 1970 is required"));
  } else if (exp <= nowSeconds) {
    reports.push(fault("exp", `${span(nowSeconds - exp)} ago`, "It has expired"));
  } else if (exp * 1000 - nowMs > MAX_TOKEN_LIFETIME_MS) {
    reports.push(
      fault(
        "exp",
        `in ${span(exp - nowSeconds)}`,
        "Ten years are the most: milliseconds for seconds?",
      ),
    );
  } else {
    reports.push(good("exp", `in ${span(exp - nowSeconds)}`));
  }
  if (!isNumber(nbf)) reports.push(fault("nbf", show(nbf), "It must be a number of seconds"));
  else if (isAhead(nbf)) {
    reports.push(
      fault(
        "nbf",
        `in ${span((nbf as number) - nowSeconds)}`,
        "It isn't valid yet: do the clocks differ?",
      ),
    );
  } else reports.push(good("nbf", show(nbf)));
  if (!isNumber(iat) || (iat as number) < 0) {
    reports.push(fault("iat", show(iat), "It must be a number of seconds"));
  } else if (isAhead(iat)) {
    reports.push(
      fault(
        "iat",
        `in ${span((iat as number) - nowSeconds)}`,
        "It comes from the future: do the clocks differ?",
      ),
    );
  } else if (iat === undefined) {
    reports.push(warning("iat", "missing", "Sign-out everywhere is refused without it"));
  } else reports.push(good("iat", `${span(nowSeconds - (iat as number))} ago`));
  return reports;
}

function explainUser(claims: Claims, { userClaim }: Config): Report[] {
  const id = Object.hasOwn(claims, userClaim) ? claims[userClaim] : undefined;
  const reports = [
    isUserId(id)
      ? good(userClaim, `the user is ${show(id)}`)
      : fault(
          userClaim,
          show(id),
          "USER_CLAIM must be text of 1 to 255 characters, without control characters",
        ),
  ];
  const verified = claims.email_verified;
  if (userClaim === "email" && (verified === false || verified === "false")) {
    reports.push(
      fault(
        "email_verified",
        show(verified),
        "An address that nobody has confirmed may be anybody's",
      ),
    );
  }
  return reports;
}

function explainSession({ sid, jti }: Claims): Report[] {
  const name = sid || jti;
  if (name) return [good(sid ? "sid" : "jti", `names the session: ${show(name)}`)];
  return [
    warning(
      "sid",
      "missing, and jti",
      "Each token is a session of its own, which sign-out ends alone",
    ),
  ];
}

type Claims = Readonly<Record<string, unknown>>;

function parse(segment: string | undefined): Claims | undefined {
  try {
    const bytes = fromBase64url(segment ?? "");
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? (value as Claims) : undefined;
  } catch {
    return undefined;
  }
}

/** A claim for a terminal: no control characters, and not too long. */
function show(value: unknown): string {
  if (value === undefined) return "missing";
  const text =
    typeof value === "string" && isLine(value, MAX_SHOWN) ? value : JSON.stringify(value);
  return text.replaceAll(/[^\P{C}]/gu, "?").slice(0, MAX_SHOWN);
}

/** A length of time in words. */
function span(seconds: number): string {
  const units: readonly (readonly [unit: string, seconds: number])[] = [
    ["days", 86_400],
    ["hours", 3_600],
    ["minutes", 60],
  ];
  for (const [unit, length] of units) {
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`;
  }
  return `${Math.round(seconds)} seconds`;
}
