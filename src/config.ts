import { DEFAULT_RETENTION, type Retention } from "./chat/history.ts";
import { CHARACTERS_PER_MINUTE } from "./chat/limits.ts";
import { secretFault, urlFault } from "./gate/options.ts";
import type { TokenKeys } from "./gate/token.ts";
import { readPublicKeys } from "./keys.ts";
import { utf8 } from "./lib/encoding.ts";
import { LOG_LEVELS, type LogLevel } from "./lib/log.ts";
import { isPrefix } from "./redis/keys.ts";
import { isStrictTransport } from "./request/headers.ts";
import { isExactOrigin, isLoopback, publicUrlFault } from "./request/origin.ts";

const DAY_MS = 86_400_000;
/** Longest path of a unix socket on Linux, in bytes. */
const MAX_SOCKET_PATH = 107;

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
  /** In place of host and port. */
  readonly unixSocket?: string;
  /** Absent in the demo mode only. */
  readonly keys?: TokenKeys;
  readonly sessionSecret?: Uint8Array<ArrayBuffer>;
  readonly previousSessionSecret?: Uint8Array<ArrayBuffer>;
  readonly issuer?: string;
  readonly audience?: readonly string[];
  readonly userClaim: string;
  readonly allowedOrigins?: readonly string[];
  readonly publicUrl?: URL;
  /** Pages of other sites on which visitors may write, in a frame. */
  readonly embedOrigins?: readonly string[];
  /** Where users sign in. */
  readonly loginUrl?: URL;
  readonly redis?: { readonly url: string; readonly token?: string; readonly prefix?: string };
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
  /** How long `/readyz` says that the server ends before it does. */
  readonly drainDelayMs: number;
}

/** What verifies tokens: one of these. */
const KEY_SOURCES = ["JWT_SECRET", "JWT_JWKS_URL", "JWT_PUBLIC_KEYS"] as const;
const OTHER_SOURCES = "JWT_JWKS_URL, or JWT_PUBLIC_KEYS";

/** With any of these set, the server is meant to be a real one, and needs real secrets. */
const LEAVES_DEMO = [
  "JWT_SECRET",
  "JWT_JWKS_URL",
  "JWT_PUBLIC_KEYS",
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

/** Whether a page from there may have the chat in a frame. It becomes part of a policy, where a semicolon would end a directive. */
function isEmbedOrigin(origin: string): boolean {
  if (!isExactOrigin(origin) || !/^[\w.:/[\]-]+$/.test(origin)) return false;
  const { protocol, hostname } = new URL(origin);
  return protocol === "https:" || isLoopback(hostname);
}

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

  function url(variable: string, options?: { allowHttp: boolean }): URL | undefined {
    const value = text(variable);
    if (value === undefined) return undefined;
    const parsed = URL.parse(value);
    const note = urlFault(parsed, options);
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
      `must be loopback in the demo mode; set JWT_SECRET, or ${OTHER_SOURCES}, and SESSION_SECRET`,
    );
  }
  if (demo && environment.NODE_ENV === "production") {
    fault(
      "NODE_ENV",
      `is production, where the demo mode doesn't start; set JWT_SECRET, or ${OTHER_SOURCES}`,
    );
    fault("SESSION_SECRET", "is required");
  }

  const unixSocket = text("UNIX_SOCKET");
  if (unixSocket !== undefined) {
    if (!unixSocket.startsWith("/") || utf8(unixSocket).length > MAX_SOCKET_PATH) {
      fault("UNIX_SOCKET", `must be a path from / of ${MAX_SOCKET_PATH} bytes at most`);
    }
    for (const variable of ["HOST", "PORT"]) {
      if (text(variable)) fault(variable, "and UNIX_SOCKET are mutually exclusive");
    }
    if ((text("TRUST_PROXY") ?? "0") === "0") {
      fault("TRUST_PROXY", "must be at least 1 with UNIX_SOCKET: only its header tells addresses");
    }
  }

  const keys = readKeys();
  function readKeys(): TokenKeys | undefined {
    const given = KEY_SOURCES.filter((variable) => text(variable) !== undefined);
    for (const other of given.slice(1)) fault(other, `and ${given[0]} are mutually exclusive`);
    if (!demo && given.length === 0) fault("JWT_SECRET", `is required, or ${OTHER_SOURCES}`);
    const jwtSecret = secret("JWT_SECRET");
    const previousSecret = previous("JWT_SECRET");
    const allowHttp = text("JWT_JWKS_ALLOW_HTTP");
    if (allowHttp !== undefined && allowHttp !== "1") fault("JWT_JWKS_ALLOW_HTTP", "must be 1");
    const jwksUrl = url("JWT_JWKS_URL", { allowHttp: allowHttp === "1" });
    const path = text("JWT_PUBLIC_KEYS");
    const file = path === undefined ? undefined : readPublicKeys(path);
    if (file && "fault" in file) return fault("JWT_PUBLIC_KEYS", file.fault);
    if (jwtSecret) return { secret: jwtSecret, ...(previousSecret && { previousSecret }) };
    if (jwksUrl) return { jwksUrl, ...(allowHttp && { allowHttp: true }) };
    return file && { publicKeys: file.keys };
  }

  /** The value that a secret had before. */
  function previous(variable: string): Uint8Array<ArrayBuffer> | undefined {
    const name = `${variable}_PREVIOUS`;
    const isAlone = text(name) !== undefined && text(variable) === undefined;
    return isAlone ? fault(name, `needs ${variable} beside it`) : secret(name);
  }

  const sessionSecret = secret("SESSION_SECRET");
  const previousSessionSecret = previous("SESSION_SECRET");
  if (!demo && text("SESSION_SECRET") === undefined) fault("SESSION_SECRET", "is required");

  const publicUrl = url("PUBLIC_URL");
  const publicNote = publicUrl && publicUrlFault(publicUrl);
  if (publicNote) fault("PUBLIC_URL", publicNote);

  const loginUrl = url("LOGIN_URL");

  const allowedOrigins = list("ALLOWED_ORIGINS");
  if (allowedOrigins && !allowedOrigins.every(isExactOrigin)) {
    fault("ALLOWED_ORIGINS", "must be exact origins such as https://example.com, with no pattern");
  }

  const embedOrigins = list("EMBED_ORIGINS");
  if (embedOrigins && !embedOrigins.every(isEmbedOrigin)) {
    fault(
      "EMBED_ORIGINS",
      "must be exact https origins such as https://example.com, with no pattern; plain http is allowed on loopback only",
    );
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
    const given = text("REDIS_PREFIX");
    if (given !== undefined && !isPrefix(given)) {
      fault(
        "REDIS_PREFIX",
        "must be 1 to 64 letters, digits, colons, dots, dashes and underscores",
      );
    }
    const prefix = given !== undefined && { prefix: given };
    if (native) return { url: native, ...prefix };
    return upstashUrl && token ? { url: upstashUrl.href, token, ...prefix } : undefined;
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
    ...(unixSocket !== undefined && { unixSocket }),
    ...(keys && { keys }),
    ...(sessionSecret && { sessionSecret }),
    ...(previousSessionSecret && { previousSessionSecret }),
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
    drainDelayMs: whole("DRAIN_DELAY_SECONDS", demo ? 0 : 2, 0, 300) * 1000,
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
