import { type Config, type Environment, variables } from "../config.ts";
import { isLoopback } from "../request/origin.ts";
import { editDistance } from "./distance.ts";
import { good, type Report, warning } from "./report.ts";

/** Letters that may be wrong in a name. */
const MAX_SLIPS = 2;
/** Shortest name that may have as many; in a shorter one a single letter may be wrong. */
const LONG_NAME = 8;

/** What is suspicious about settings that can be used, without reaching anything. */
export function inspectSettings(config: Config, environment: Environment): Report[] {
  const { demo, host, keys, issuer, audience, publicUrl, allowedOrigins, trustProxy, redis } =
    config;
  const reports = nearMisses(environment);
  if (environment.NODE_TLS_REJECT_UNAUTHORIZED === "0") {
    reports.push(
      warning(
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "0",
        "No certificate is verified: use NODE_EXTRA_CA_CERTS",
      ),
    );
  }
  if (demo) {
    const found = "none set: the demo, with random secrets, on loopback, and everything in memory";
    return [...reports, good("settings", found)];
  }

  if (issuer === undefined) {
    reports.push(
      warning("JWT_ISSUER", "not set", "Tokens of any issuer with this key are accepted"),
    );
  }
  if (audience === undefined) {
    reports.push(
      warning(
        "JWT_AUDIENCE",
        "not set",
        "Tokens that the issuer made for other services are accepted",
      ),
    );
  }
  for (const variable of ["JWT_SECRET", "SESSION_SECRET"]) {
    const previous = `${variable}_PREVIOUS`;
    if (environment[variable] && environment[variable] === environment[previous]) {
      const note = "It is for the value before: leave it out, unless you are changing the secret";
      reports.push(warning(previous, `the same as ${variable}`, note));
    }
  }
  if (keys && "jwksUrl" in keys && isPlain(keys.jwksUrl)) {
    const note =
      "Whoever is on the way to it can put in keys of their own: only on a private network";
    reports.push(warning("JWT_JWKS_URL", "plain http", note));
  }
  if (environment.JWT_SECRET && environment.JWT_SECRET === environment.SESSION_SECRET) {
    reports.push(
      warning(
        "SESSION_SECRET",
        "the same as JWT_SECRET",
        "Whoever signs tokens can sign cookies, too",
      ),
    );
  }
  if (publicUrl && allowedOrigins && !allowedOrigins.includes(publicUrl.origin)) {
    reports.push(
      warning(
        "ALLOWED_ORIGINS",
        `${publicUrl.origin} isn't in it`,
        "The server's own pages are refused: the list stands for all origins, its own included",
      ),
    );
  }
  if (!publicUrl && (trustProxy > 0 || !isLoopback(host))) {
    reports.push(
      warning(
        "PUBLIC_URL",
        "not set",
        "Behind a proxy the server's own pages are refused, and its cookies aren't Secure: set the URL that browsers see",
      ),
    );
  }
  if (publicUrl?.protocol === "https:" && trustProxy === 0) {
    reports.push(
      warning(
        "TRUST_PROXY",
        "0",
        "The proxy in front counts as everybody's address: set the number of proxies",
      ),
    );
  }
  if (redis && environment.CHAT_DATABASE) {
    reports.push(
      warning("CHAT_DATABASE", "set beside a Redis", "Chats are stored in Redis, not in this file"),
    );
  }
  return reports;
}

function isPlain({ protocol, hostname }: URL): boolean {
  return protocol === "http:" && !isLoopback(hostname);
}

/** Variables that nothing reads, with a name that is almost one of ours. */
export function nearMisses(environment: Environment): Report[] {
  const known = variables();
  const others = Object.keys(environment).filter((name) => !known.includes(name));
  return others.flatMap((name) => {
    const meant = nearest(name, known);
    // What is set under its right name as well isn't missing.
    if (meant === undefined || environment[meant]) return [];
    return [warning(name, `not read: ${meant} is`, "A name that looks like a setting's is none")];
  });
}

/** The name that was meant, if a slip or two make the difference. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: { readonly variable: string; readonly distance: number } | undefined;
  for (const variable of known) {
    if (Math.abs(name.length - variable.length) > MAX_SLIPS) continue;
    const distance = editDistance(name.toUpperCase(), variable);
    const isNear = distance <= (variable.length >= LONG_NAME ? MAX_SLIPS : 1);
    if (isNear && (!best || distance < best.distance)) best = { variable, distance };
  }
  return best?.variable;
}
