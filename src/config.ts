import { DEFAULT_RETENTION, type Retention } from "./chat/history.ts";
import { CHARACTERS_PER_MINUTE } from "./chat/limits.ts";
import { secretFault, urlFault } from "./gate/options.ts";
import type { TokenKeys } from "./gate/token.ts";
import { utf8 } from "./lib/encoding.ts";
import { LOG_LEVELS, type LogLevel } from "./lib/log.ts";
import { isStrictTransport } from "./request/headers.ts";
import { isExactOrigin, isLoopback } from "./request/origin.ts";

const DAY_MS = 86_400_000;

export type Environment = Readonly<Record<string, string | undefined>>;

/** One thing wrong with the configuration. The note never contains a value. */
export interface Fault {
  readonly variable: string;
  readonly note: string;
}

export interface Config {
  /** Nothing is configured: random secrets, everything in memory, loopback only. */
  readonly demo: boolean;
  readonly host: string;
  readonly port: number;
  /** Absent in the demo mode only. */
  readonly keys?: TokenKeys;
  readonly sessionSecret?: Uint8Array<ArrayBuffer>;
  readonly issuer?: string;
  readonly audience?: readonly string[];
  readonly userClaim: string;
  readonly allowedOrigins?: readonly string[];
  readonly publicUrl?: URL;
  /** Pages of other sites on which visitors may write, in a frame. */
  readonly embedOrigins?: readonly string[];
  /** Where users sign in. */
  readonly loginUrl?: URL;
  readonly redis?: { readonly url: string; readonly token?: string };
  readonly chatDatabase: string;
  readonly retention: Retention;
  readonly ticketTtlMs: number;
  readonly trustProxy: number;
  /** `false`: none; absent: the default. */
  readonly strictTransport?: string | false;
  readonly ticketsPerMinute: number;
  readonly maxSocketsPerIdentity: number;
  readonly messagesPerSecond: number;
  readonly maxMessageBytes: number;
  readonly charactersPerMinute: number;
  readonly adminToken?: string;
  /** Absent: no metrics are served. */
  readonly metricsPort?: number;
  readonly metricsHost: string;
  readonly logLevel: LogLevel;
}

/** With any of these set, the server is meant to be a real one, and needs real secrets. */
const LEAVES_DEMO = [
  "JWT_SECRET",
  "JWT_JWKS_URL",
  "JWT_ISSUER",
  "JWT_AUDIENCE",
  "USER_CLAIM",
  "SESSION_SECRET",
  "PUBLIC_URL",
  "LOGIN_URL",
  "ALLOWED_ORIGINS",
  "TRUST_PROXY",
  "ADMIN_TOKEN",
  "UPSTASH_REDIS_REST_URL",
  "UPSTASH_REDIS_REST_TOKEN",
  "REDIS_URL",
];

/** Reads the whole configuration from the environment; all faults at once, an empty value counting as none. */
export function readConfig(
  environment: Environment,
):
  | { readonly ok: true; readonly config: Config }
  | { readonly ok: false; readonly faults: Fault[] } {
  const faults: Fault[] = [];
  const fault = (variable: string, note: string) => {
    faults.push({ variable, note });
    return undefined;
  };
  const text = (variable: string) => environment[variable] || undefined;

  function whole(variable: string, fallback: number, least: number, most: number): number {
    const value = text(variable);
    if (value === undefined) return fallback;
    const number = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
    if (number >= least && number <= most) return number;
    fault(variable, `must be a whole number from ${least} to ${most}`);
    return fallback;
  }

  function secret(variable: string): Uint8Array<ArrayBuffer> | undefined {
    const value = text(variable);
    if (value === undefined) return undefined;
    const bytes = utf8(value);
    const note = secretFault(bytes);
    return note === undefined ? bytes : fault(variable, note);
  }

  function url(variable: string): URL | undefined {
    const value = text(variable);
    if (value === undefined) return undefined;
    const parsed = URL.parse(value);
    const note = urlFault(parsed);
    return note === undefined ? (parsed as URL) : fault(variable, note);
  }

  function list(variable: string): string[] | undefined {
    return text(variable)
      ?.split(",")
      .map((item) => item.trim());
  }

  const demo = LEAVES_DEMO.every((variable) => text(variable) === undefined);
  const host = text("HOST") ?? "127.0.0.1";
  if (demo && !isLoopback(host)) {
    fault(
      "HOST",
      "must be loopback in the demo mode; set JWT_SECRET or JWT_JWKS_URL, and SESSION_SECRET",
    );
  }
  if (demo && environment.NODE_ENV === "production") {
    fault(
      "NODE_ENV",
      "is production, where the demo mode doesn't start; set JWT_SECRET or JWT_JWKS_URL",
    );
    fault("SESSION_SECRET", "is required");
  }

  const jwtSecret = secret("JWT_SECRET");
  const jwksUrl = url("JWT_JWKS_URL");
  const hasSecret = text("JWT_SECRET") !== undefined;
  const hasJwks = text("JWT_JWKS_URL") !== undefined;
  if (hasSecret && hasJwks) fault("JWT_JWKS_URL", "and JWT_SECRET are mutually exclusive");
  if (!demo && !hasSecret && !hasJwks) fault("JWT_SECRET", "is required, or JWT_JWKS_URL");
  const keys = jwtSecret ? { secret: jwtSecret } : jwksUrl ? { jwksUrl } : undefined;

  const sessionSecret = secret("SESSION_SECRET");
  if (!demo && text("SESSION_SECRET") === undefined) fault("SESSION_SECRET", "is required");

  const publicUrl = url("PUBLIC_URL");
  if (publicUrl && (publicUrl.pathname !== "/" || publicUrl.search || publicUrl.hash)) {
    fault("PUBLIC_URL", "must be an origin, without path, query and fragment");
  }

  const loginUrl = url("LOGIN_URL");

  const allowedOrigins = list("ALLOWED_ORIGINS");
  if (allowedOrigins && !allowedOrigins.every(isExactOrigin)) {
    fault("ALLOWED_ORIGINS", "must be exact origins such as https://example.com, with no pattern");
  }

  const embedOrigins = list("EMBED_ORIGINS");
  if (embedOrigins && !embedOrigins.every(isExactOrigin)) {
    fault("EMBED_ORIGINS", "must be exact origins such as https://example.com, with no pattern");
  }

  const issuer = text("JWT_ISSUER");
  const audience = list("JWT_AUDIENCE");
  if (audience?.includes("")) fault("JWT_AUDIENCE", "must be one audience, or several with commas");
  const redis = readRedis();
  function readRedis(): Config["redis"] {
    const upstashUrl = url("UPSTASH_REDIS_REST_URL");
    const token = text("UPSTASH_REDIS_REST_TOKEN");
    const native = text("REDIS_URL");
    if (native && !/^(?:redis|valkey)s?:$/.test(URL.parse(native)?.protocol ?? "")) {
      fault("REDIS_URL", "must be a redis:// or rediss:// URL");
    }
    if (text("UPSTASH_REDIS_REST_URL") && !token) {
      fault("UPSTASH_REDIS_REST_TOKEN", "is required with UPSTASH_REDIS_REST_URL");
    }
    if (token && !text("UPSTASH_REDIS_REST_URL")) {
      fault("UPSTASH_REDIS_REST_URL", "is required with UPSTASH_REDIS_REST_TOKEN");
    }
    if (token && /\s/.test(token))
      fault("UPSTASH_REDIS_REST_TOKEN", "must not contain white space");
    if (native && (token || upstashUrl)) {
      fault("REDIS_URL", "and UPSTASH_REDIS_REST_URL are mutually exclusive");
    }
    if (native) return { url: native };
    return upstashUrl && token ? { url: upstashUrl.href, token } : undefined;
  }

  const transport = text("STRICT_TRANSPORT_SECURITY");
  const strictTransport = transport === "off" ? false : transport;
  if (strictTransport && !isStrictTransport(strictTransport)) {
    fault("STRICT_TRANSPORT_SECURITY", "must be like max-age=31536000; includeSubDomains, or off");
  }

  const logLevel = (text("LOG_LEVEL") ?? "info") as LogLevel;
  if (!LOG_LEVELS.includes(logLevel)) fault("LOG_LEVEL", `must be one of ${LOG_LEVELS.join(", ")}`);

  const adminToken = secret("ADMIN_TOKEN") && text("ADMIN_TOKEN");
  if (adminToken && !/^[\w.~+/-]+=*$/.test(adminToken)) {
    fault("ADMIN_TOKEN", "must consist of letters, digits and -._~+/ only");
  }

  const config: Config = {
    demo,
    host,
    port: whole("PORT", 3000, 0, 65_535),
    ...(keys && { keys }),
    ...(sessionSecret && { sessionSecret }),
    ...(issuer && { issuer }),
    ...(audience && { audience }),
    userClaim: text("USER_CLAIM") ?? "sub",
    ...(allowedOrigins && { allowedOrigins }),
    ...(publicUrl && { publicUrl }),
    ...(loginUrl && { loginUrl }),
    ...(embedOrigins && { embedOrigins }),
    ...(redis && { redis }),
    chatDatabase: text("CHAT_DATABASE") ?? (demo ? ":memory:" : "ws-ticket.sqlite"),
    retention: {
      maxMessages: whole("CHAT_MAX_MESSAGES", DEFAULT_RETENTION.maxMessages, 0, 1_000_000),
      maxAgeMs: whole("CHAT_MAX_AGE_DAYS", DEFAULT_RETENTION.maxAgeMs / DAY_MS, 0, 3_650) * DAY_MS,
    },
    ticketTtlMs: whole("TICKET_TTL_SECONDS", 30, 1, 300) * 1000,
    trustProxy: whole("TRUST_PROXY", 0, 0, 10),
    ...(strictTransport !== undefined && { strictTransport }),
    ticketsPerMinute: whole("TICKETS_PER_MINUTE", 60, 0, 1_000_000),
    maxSocketsPerIdentity: whole("MAX_SOCKETS_PER_IDENTITY", 20, 0, 1_000_000),
    messagesPerSecond: whole("MESSAGES_PER_SECOND", 20, 0, 1_000_000),
    charactersPerMinute: whole("CHARACTERS_PER_MINUTE", CHARACTERS_PER_MINUTE, 0, 1_000_000_000),
    maxMessageBytes: whole("MAX_MESSAGE_BYTES", 16_384, 128, 16 * 1024 * 1024),
    ...(adminToken && { adminToken }),
    metricsHost: text("METRICS_HOST") ?? "127.0.0.1",
    ...(text("METRICS_PORT") && { metricsPort: whole("METRICS_PORT", 0, 0, 65_535) }),
    logLevel,
  };
  return faults.length === 0 ? { ok: true, config } : { ok: false, faults };
}

/** Every variable that is read. */
export function variables(): string[] {
  const names = new Set<string>();
  const get = (_: object, name: string | symbol): undefined => void names.add(String(name));
  readConfig(new Proxy({}, { get }));
  return [...names];
}
