import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DEFAULT_RETENTION } from "../../src/chat/history.ts";
import { type Config, type Environment, type Fault, readConfig } from "../../src/config.ts";
import { MIN_SECRET_BYTES } from "../../src/gate/options.ts";
import { utf8 } from "../../src/lib/encoding.ts";

const JWT_SECRET = "a secret for tokens, long enough by far";
const SESSION_SECRET = "a secret for cookies, long enough, too";
/** The least that a server outside the demo mode needs. */
const LEAST = { JWT_SECRET, SESSION_SECRET };

function configOf(environment: Environment): Config {
  const read = readConfig(environment);
  if (!read.ok) throw new Error(`Faults: ${JSON.stringify(read.faults)}`);
  return read.config;
}

function faultsOf(environment: Environment): Fault[] {
  const read = readConfig(environment);
  const faults = read.ok ? [] : read.faults;
  // Read behind the variable's name.
  for (const { note } of faults) expect(note).toMatch(/^(?:is|must|and|needs|can't) .{4,}/);
  return faults;
}

/** The variables that are at fault, each once. */
function atFault(environment: Environment): string[] {
  return [...new Set(faultsOf(environment).map(({ variable }) => variable))];
}

const DEFAULTS = {
  host: "127.0.0.1",
  port: 3000,
  userClaim: "sub",
  ticketTtlMs: 30_000,
  trustProxy: 0,
  ticketsPerMinute: 60,
  maxSocketsPerIdentity: 20,
  messagesPerSecond: 20,
  maxMessageBytes: 16_384,
  metricsHost: "127.0.0.1",
  logLevel: "info",
  retention: DEFAULT_RETENTION,
} as const;

test("with nothing set it is the demo: loopback, everything in memory, and only random secrets", () => {
  const config = configOf({});
  expect(config).toMatchObject({ ...DEFAULTS, demo: true, chatDatabase: ":memory:" });
  for (const absent of [
    "keys",
    "sessionSecret",
    "issuer",
    "audience",
    "allowedOrigins",
    "publicUrl",
    "redis",
    "adminToken",
    "metricsPort",
    "strictTransport",
  ]) {
    expect(config).not.toHaveProperty(absent);
  }
});

test("with the two secrets it is a server, and all else has its default", () => {
  const config = configOf(LEAST);
  expect(config).toMatchObject({ ...DEFAULTS, demo: false, chatDatabase: "ws-ticket.sqlite" });
  expect(config.keys).toEqual({ secret: utf8(JWT_SECRET) });
  expect(config.sessionSecret).toEqual(utf8(SESSION_SECRET));
});

describe("each variable", () => {
  test.each<[string, string, Partial<Config>]>([
    ["HOST", "0.0.0.0", { host: "0.0.0.0" }],
    ["PORT", "0", { port: 0 }],
    ["PORT", "65535", { port: 65_535 }],
    ["JWT_ISSUER", "https://id.example.com", { issuer: "https://id.example.com" }],
    ["JWT_AUDIENCE", "chat", { audience: ["chat"] }],
    [
      "JWT_AUDIENCE",
      "chat, mobile,https://api.example/",
      { audience: ["chat", "mobile", "https://api.example/"] },
    ],
    ["ALLOWED_ORIGINS", "https://a.example", { allowedOrigins: ["https://a.example"] }],
    [
      "ALLOWED_ORIGINS",
      "https://a.example, http://localhost:5173 ,https://b.example:8443",
      { allowedOrigins: ["https://a.example", "http://localhost:5173", "https://b.example:8443"] },
    ],
    ["PUBLIC_URL", "https://chat.example.com", { publicUrl: new URL("https://chat.example.com") }],
    ["PUBLIC_URL", "https://a.example/chat", { publicUrl: new URL("https://a.example/chat") }],
    ["PUBLIC_URL", "http://localhost:8080", { publicUrl: new URL("http://localhost:8080") }],
    [
      "LOGIN_URL",
      "https://app.example/login?a=b",
      { loginUrl: new URL("https://app.example/login?a=b") },
    ],
    [
      "EMBED_ORIGINS",
      "https://a.example, https://b.example:8443,http://localhost:5173,https://[2001:db8::1]",
      {
        embedOrigins: [
          ...["https://a.example", "https://b.example:8443", "http://localhost:5173"],
          "https://[2001:db8::1]",
        ],
      },
    ],
    ["TICKET_TTL_SECONDS", "1", { ticketTtlMs: 1_000 }],
    ["TICKET_TTL_SECONDS", "300", { ticketTtlMs: 300_000 }],
    ["REDIS_URL", "redis://127.0.0.1:6379", { redis: { url: "redis://127.0.0.1:6379" } }],
    [
      "REDIS_URL",
      "rediss://u:p@redis.example:6380/1",
      { redis: { url: "rediss://u:p@redis.example:6380/1" } },
    ],
    ["REDIS_URL", "valkey://127.0.0.1", { redis: { url: "valkey://127.0.0.1" } }],
    ["CHAT_DATABASE", "/srv/chat.sqlite", { chatDatabase: "/srv/chat.sqlite" }],
    ["CHAT_MAX_MESSAGES", "500", { retention: { ...DEFAULT_RETENTION, maxMessages: 500 } }],
    ["CHAT_MAX_AGE_DAYS", "2", { retention: { ...DEFAULT_RETENTION, maxAgeMs: 172_800_000 } }],
    ["USER_CLAIM", "email", { userClaim: "email" }],
    ["TRUST_PROXY", "2", { trustProxy: 2 }],
    ["TICKETS_PER_MINUTE", "0", { ticketsPerMinute: 0 }],
    ["MAX_SOCKETS_PER_IDENTITY", "5", { maxSocketsPerIdentity: 5 }],
    ["MESSAGES_PER_SECOND", "7", { messagesPerSecond: 7 }],
    ["CHARACTERS_PER_MINUTE", "0", { charactersPerMinute: 0 }],
    ["CHARACTERS_PER_MINUTE", "1000000000", { charactersPerMinute: 1_000_000_000 }],
    ["MAX_MESSAGE_BYTES", "1024", { maxMessageBytes: 1_024 }],
    ["ADMIN_TOKEN", `${"aZ09-._~+/".repeat(4)}==`, { adminToken: `${"aZ09-._~+/".repeat(4)}==` }],
    ["METRICS_PORT", "9464", { metricsPort: 9_464 }],
    ["METRICS_PORT", "0", { metricsPort: 0 }],
    ["METRICS_HOST", "10.0.0.5", { metricsHost: "10.0.0.5" }],
    ["STRICT_TRANSPORT_SECURITY", "max-age=0", { strictTransport: "max-age=0" }],
    [
      "STRICT_TRANSPORT_SECURITY",
      "max-age=63072000; includeSubDomains; preload",
      { strictTransport: "max-age=63072000; includeSubDomains; preload" },
    ],
    ["STRICT_TRANSPORT_SECURITY", "off", { strictTransport: false }],
    ...["debug", "info", "warn", "error", "silent"].map(
      (level): [string, string, Partial<Config>] => [
        "LOG_LEVEL",
        level,
        { logLevel: level as Config["logLevel"] },
      ],
    ),
  ])("%s=%s", (variable, value, expected) => {
    expect(configOf({ ...LEAST, [variable]: value })).toMatchObject(expected);
  });

  test("JWT_JWKS_URL in place of the secret", () => {
    for (const url of [
      "https://id.example.com/jwks.json",
      "http://127.0.0.1:9000/jwks",
      "http://[::1]/jwks",
      "http://localhost/jwks",
    ]) {
      const config = configOf({ JWT_JWKS_URL: url, SESSION_SECRET });
      expect(config.keys).toEqual({ jwksUrl: new URL(url) });
    }
  });

  test("UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN", () => {
    const config = configOf({
      ...LEAST,
      UPSTASH_REDIS_REST_URL: "https://eu1-example.upstash.io",
      UPSTASH_REDIS_REST_TOKEN: "AXYZ",
    });
    expect(config.redis).toEqual({
      url: "https://eu1-example.upstash.io/",
      token: "AXYZ",
    });
  });

  test("REDIS_PREFIX belongs to the Redis, of either kind", () => {
    const prefix = { ...LEAST, REDIS_PREFIX: "chat.eu-1:" };
    const native = { ...prefix, REDIS_URL: "redis://127.0.0.1" };
    expect(configOf(native).redis).toEqual({ url: "redis://127.0.0.1", prefix: "chat.eu-1:" });
    const upstash = { UPSTASH_REDIS_REST_URL: "https://a.example", UPSTASH_REDIS_REST_TOKEN: "t" };
    expect(configOf({ ...prefix, ...upstash }).redis?.prefix).toBe("chat.eu-1:");
    expect(configOf(prefix).redis).toBeUndefined();
  });

  test("an empty value counts as not set", () => {
    const names = [
      "HOST",
      "PORT",
      "JWT_SECRET",
      "JWT_SECRET_PREVIOUS",
      "JWT_JWKS_URL",
      "JWT_JWKS_ALLOW_HTTP",
      "JWT_PUBLIC_KEYS",
      "JWT_ISSUER",
      "JWT_AUDIENCE",
      "SESSION_SECRET",
      "SESSION_SECRET_PREVIOUS",
      "ALLOWED_ORIGINS",
      "EMBED_ORIGINS",
      "LOGIN_URL",
      "PUBLIC_URL",
      "TICKET_TTL_SECONDS",
      "UPSTASH_REDIS_REST_URL",
      "UPSTASH_REDIS_REST_TOKEN",
      "REDIS_URL",
      "REDIS_PREFIX",
      "CHAT_DATABASE",
      "CHAT_MAX_MESSAGES",
      "CHAT_MAX_AGE_DAYS",
      "USER_CLAIM",
      "TRUST_PROXY",
      "TICKETS_PER_MINUTE",
      "MAX_SOCKETS_PER_IDENTITY",
      "MESSAGES_PER_SECOND",
      "CHARACTERS_PER_MINUTE",
      "MAX_MESSAGE_BYTES",
      "ADMIN_TOKEN",
      "METRICS_PORT",
      "METRICS_HOST",
      "UNIX_SOCKET",
      "DRAIN_DELAY_SECONDS",
      "STRICT_TRANSPORT_SECURITY",
      "LOG_LEVEL",
      "NODE_ENV",
    ];
    expect(readConfig(Object.fromEntries(names.map((name) => [name, ""])))).toEqual(readConfig({}));
  });

  test("secrets count in bytes, not in characters", () => {
    expect(atFault({ ...LEAST, JWT_SECRET: "é1".repeat(10) })).toEqual(["JWT_SECRET"]);
    expect(atFault({ ...LEAST, JWT_SECRET: "é1".repeat(11) })).toEqual([]);
  });
});

describe("a fault of its own variable", () => {
  test.each<[string, string, string]>([
    ["no number", "PORT", "http"],
    ["a fraction", "PORT", "3000.5"],
    ["an exponent", "PORT", "3e3"],
    ["hexadecimal", "PORT", "0x10"],
    ["a number with a space", "PORT", " 3000"],
    ["digits of another script", "PORT", "３０００"],
    ["a number with a suffix", "PORT", "3000; rm"],
    ["a unit", "TICKET_TTL_SECONDS", "30s"],
    ["true", "TRUST_PROXY", "true"],
    ["an address", "TRUST_PROXY", "10.0.0.1"],
    ["an empty one of several", "JWT_AUDIENCE", "chat,,mobile"],
    ["nothing but a comma", "JWT_AUDIENCE", ","],
    ["no age", "STRICT_TRANSPORT_SECURITY", "includeSubDomains"],
    ["another header behind it", "STRICT_TRANSPORT_SECURITY", "max-age=1\r\nX: y"],
    ["false", "STRICT_TRANSPORT_SECURITY", "false"],
    ["something in front of it", "STRICT_TRANSPORT_SECURITY", "x; max-age=1"],
    ["no number", "TICKETS_PER_MINUTE", "many"],
    ["no number", "CHAT_MAX_MESSAGES", "all"],
    ["no number", "MAX_SOCKETS_PER_IDENTITY", "NaN"],
    ["no number", "MESSAGES_PER_SECOND", "Infinity"],
    ["a short secret", "ADMIN_TOKEN", "admin"],
    ["one character repeated", "ADMIN_TOKEN", "a".repeat(40)],
    [
      "characters that an Authorization header can't carry",
      "ADMIN_TOKEN",
      "an admin's token with spaces in it, long",
    ],
    ["no number", "METRICS_PORT", "yes"],
    ["an unknown level", "LOG_LEVEL", "verbose"],
    ["a level in other case", "LOG_LEVEL", "INFO"],
    ["a name that objects inherit", "LOG_LEVEL", "constructor"],
    ["a short secret", "JWT_SECRET", "x1".repeat(15)],
    ["one character repeated", "JWT_SECRET", "x".repeat(64)],
    ["a short secret", "SESSION_SECRET", "secret"],
    ["one character repeated", "SESSION_SECRET", "0".repeat(32)],
    ["two slashes in a path", "PUBLIC_URL", "https://example.com/a//b"],
    ["a query", "PUBLIC_URL", "https://example.com/?a=b"],
    ["a fragment", "PUBLIC_URL", "https://example.com/#a"],
    ["credentials", "PUBLIC_URL", "https://user:pass@example.com"],
    ["plain http", "PUBLIC_URL", "http://example.com"],
    ["plain http to a host that looks like loopback", "PUBLIC_URL", "http://127.0.0.1.example.com"],
    [
      "plain http to a host that looks like localhost",
      "PUBLIC_URL",
      "http://localhost.example.com",
    ],
    ["another scheme", "PUBLIC_URL", "wss://example.com"],
    ["plain http", "LOGIN_URL", "http://example.com/login"],
    ["a script", "LOGIN_URL", "javascript:alert(1)"],
    ["a path of its own", "LOGIN_URL", "/login"],
    ["an asterisk", "EMBED_ORIGINS", "*"],
    ["a pattern", "EMBED_ORIGINS", "https://*.example.com"],
    ["a trailing slash", "EMBED_ORIGINS", "https://example.com/"],
    ["the end of a directive", "EMBED_ORIGINS", "https://example.com;script-src"],
    ["a keyword", "EMBED_ORIGINS", "'self'"],
    ["plain http", "EMBED_ORIGINS", "http://example.com"],
    ["a trailing comma", "EMBED_ORIGINS", "https://example.com,"],
    ["no URL", "PUBLIC_URL", "example.com"],
    ["plain http", "UPSTASH_REDIS_REST_URL", "http://example.upstash.io"],
    ["another scheme", "UPSTASH_REDIS_REST_URL", "redis://example.upstash.io"],
    ["white space", "UPSTASH_REDIS_REST_TOKEN", "AX YZ"],
    ["a line break", "UPSTASH_REDIS_REST_TOKEN", "AXYZ\n"],
    ["another scheme", "REDIS_URL", "https://127.0.0.1:6379"],
    ["no URL", "REDIS_URL", "127.0.0.1:6379"],
    ["an asterisk", "REDIS_PREFIX", "ws-*:"],
    ["white space", "REDIS_PREFIX", "ws ticket:"],
    ["braces", "REDIS_PREFIX", "{ws}:"],
    ["65 characters", "REDIS_PREFIX", "x".repeat(65)],
    ["an asterisk", "ALLOWED_ORIGINS", "*"],
    ["null", "ALLOWED_ORIGINS", "null"],
    ["a pattern for subdomains", "ALLOWED_ORIGINS", "https://*.example.com"],
    ["a pattern for ports", "ALLOWED_ORIGINS", "https://example.com:*"],
    ["a pattern inside a name", "ALLOWED_ORIGINS", "https://app-*.example.com"],
    ["a regular expression", "ALLOWED_ORIGINS", "/example\\.com$/"],
    ["a regular expression as a host", "ALLOWED_ORIGINS", "https://(a|b).example.com"],
    ["a host without a scheme", "ALLOWED_ORIGINS", "example.com"],
    ["a trailing slash", "ALLOWED_ORIGINS", "https://example.com/"],
    ["a path", "ALLOWED_ORIGINS", "https://example.com/chat"],
    ["the default port", "ALLOWED_ORIGINS", "https://example.com:443"],
    ["upper case", "ALLOWED_ORIGINS", "https://Example.com"],
    ["credentials", "ALLOWED_ORIGINS", "https://a@example.com"],
    ["another scheme", "ALLOWED_ORIGINS", "wss://example.com"],
    ["a file", "ALLOWED_ORIGINS", "file://"],
    ["a good one and a bad one", "ALLOWED_ORIGINS", "https://example.com,*"],
    ["a trailing comma", "ALLOWED_ORIGINS", "https://example.com,"],
    ["a space between", "ALLOWED_ORIGINS", "https://a.example https://b.example"],
  ])("%s: %s=%s", (_, variable, value) => {
    const upstash = { UPSTASH_REDIS_REST_URL: "https://a.example", UPSTASH_REDIS_REST_TOKEN: "t" };
    const environment = {
      ...LEAST,
      ...(variable.startsWith("UPSTASH") && upstash),
      [variable]: value,
    };
    expect(atFault(environment)).toEqual([variable]);
  });

  test.each<[string, number, number]>([
    ["PORT", 0, 65_535],
    ["CHAT_MAX_MESSAGES", 0, 1_000_000],
    ["CHAT_MAX_AGE_DAYS", 0, 3_650],
    ["TICKET_TTL_SECONDS", 1, 300],
    ["TRUST_PROXY", 0, 10],
    ["TICKETS_PER_MINUTE", 0, 1_000_000],
    ["MAX_SOCKETS_PER_IDENTITY", 0, 1_000_000],
    ["MESSAGES_PER_SECOND", 0, 1_000_000],
    ["CHARACTERS_PER_MINUTE", 0, 1_000_000_000],
    ["MAX_MESSAGE_BYTES", 128, 16_777_216],
    ["METRICS_PORT", 0, 65_535],
  ])("%s is a whole number from %i to %i", (variable, least, most) => {
    for (const value of [least, most]) {
      expect(atFault({ ...LEAST, [variable]: String(value) })).toEqual([]);
    }
    for (const value of [least - 1, most + 1]) {
      expect(atFault({ ...LEAST, [variable]: String(value) })).toEqual([variable]);
    }
  });

  test.each([
    ["plain http", "http://id.example.com/jwks"],
    ["a file", "file:///etc/jwks.json"],
    ["data", 'data:application/json,{"keys":[]}'],
    ["no URL", "id.example.com/jwks"],
    ["credentials", "https://user:pass@id.example.com/jwks"],
  ])("%s: JWT_JWKS_URL=%s", (_, url) => {
    expect(atFault({ JWT_JWKS_URL: url, SESSION_SECRET })).toEqual(["JWT_JWKS_URL"]);
  });
});

describe("faults of a combination", () => {
  test.each<[string, Environment, string[]]>([
    [
      "a secret and a key set",
      { ...LEAST, JWT_JWKS_URL: "https://id.example.com/jwks" },
      ["JWT_JWKS_URL"],
    ],
    ["no way to verify tokens", { SESSION_SECRET }, ["JWT_SECRET"]],
    ["no secret for cookies", { JWT_SECRET }, ["SESSION_SECRET"]],
    ["neither", { JWT_ISSUER: "https://id.example.com" }, ["JWT_SECRET", "SESSION_SECRET"]],
    [
      "Upstash's URL without its token",
      { ...LEAST, UPSTASH_REDIS_REST_URL: "https://a.example" },
      ["UPSTASH_REDIS_REST_TOKEN"],
    ],
    [
      "Upstash's token without its URL",
      { ...LEAST, UPSTASH_REDIS_REST_TOKEN: "t" },
      ["UPSTASH_REDIS_REST_URL"],
    ],
    [
      "two ways to Redis",
      {
        ...LEAST,
        REDIS_URL: "redis://127.0.0.1",
        UPSTASH_REDIS_REST_URL: "https://a.example",
        UPSTASH_REDIS_REST_TOKEN: "t",
      },
      ["REDIS_URL"],
    ],
  ])("%s", (_, environment, variables) => {
    expect(atFault(environment)).toEqual(variables);
  });
});

describe("the demo mode", () => {
  test.each<[string, Environment]>([
    ["HOST=localhost", { HOST: "localhost" }],
    ["HOST=::1", { HOST: "::1" }],
    ["HOST=127.0.0.53", { HOST: "127.0.0.53" }],
    ["PORT", { PORT: "8080" }],
    ["LOG_LEVEL", { LOG_LEVEL: "debug" }],
    ["NODE_ENV=development", { NODE_ENV: "development" }],
    ["variables of other programs", { PATH: "/bin", HOME: "/", DATABASE_URL: "postgres://x" }],
  ])("stays with %s", (_, environment) => {
    expect(configOf(environment).demo).toBe(true);
  });

  test.each([
    ["JWT_SECRET", JWT_SECRET],
    ["JWT_JWKS_URL", "https://id.example.com/jwks"],
    ["JWT_PUBLIC_KEYS", "/no/such/file"],
    ["JWT_ISSUER", "https://id.example.com"],
    ["JWT_AUDIENCE", "chat"],
    ["SESSION_SECRET", SESSION_SECRET],
    ["PUBLIC_URL", "https://chat.example.com"],
    ["REDIS_URL", "redis://127.0.0.1"],
    ["UPSTASH_REDIS_REST_URL", "https://a.example"],
    ["UPSTASH_REDIS_REST_TOKEN", "t"],
  ])("ends with %s: what is missing then is a fault, not made up", (variable, value) => {
    const missing = atFault({ [variable]: value });
    if (variable !== "SESSION_SECRET") expect(missing).toContain("SESSION_SECRET");
    if (
      !variable.startsWith("JWT_SECRET") &&
      variable !== "JWT_JWKS_URL" &&
      variable !== "JWT_PUBLIC_KEYS"
    )
      expect(missing).toContain("JWT_SECRET");
  });

  test.each([
    "0.0.0.0",
    "::",
    "192.168.1.5",
    "example.com",
    "127.0.0.1.example.com",
    "localhost.example.com",
  ])("doesn't start on HOST=%s", (HOST) => {
    expect(atFault({ HOST })).toEqual(["HOST"]);
    expect(atFault({ ...LEAST, HOST })).toEqual([]);
  });

  test("doesn't start with NODE_ENV=production", () => {
    expect(atFault({ NODE_ENV: "production" })).toEqual(["NODE_ENV", "SESSION_SECRET"]);
    expect(atFault({ ...LEAST, NODE_ENV: "production" })).toEqual([]);
  });
});

describe("all faults at once, none with a value", () => {
  const CANARY = "canary7f3a";

  test("every wrong variable is named", () => {
    const environment = {
      PORT: CANARY,
      JWT_SECRET: CANARY,
      JWT_SECRET_PREVIOUS: CANARY,
      JWT_JWKS_URL: `http://${CANARY}.example`,
      JWT_JWKS_ALLOW_HTTP: CANARY,
      JWT_PUBLIC_KEYS: `/no/such/${CANARY}`,
      SESSION_SECRET: CANARY,
      SESSION_SECRET_PREVIOUS: CANARY,
      ALLOWED_ORIGINS: `*.${CANARY}.example`,
      PUBLIC_URL: `https://${CANARY}:${CANARY}@example.com`,
      TICKET_TTL_SECONDS: CANARY,
      UPSTASH_REDIS_REST_URL: `http://${CANARY}.example`,
      UPSTASH_REDIS_REST_TOKEN: `${CANARY} ${CANARY}`,
      REDIS_URL: `http://:${CANARY}@${CANARY}`,
      CHAT_MAX_MESSAGES: CANARY,
      CHAT_MAX_AGE_DAYS: CANARY,
      TRUST_PROXY: CANARY,
      TICKETS_PER_MINUTE: CANARY,
      MAX_SOCKETS_PER_IDENTITY: CANARY,
      MESSAGES_PER_SECOND: CANARY,
      CHARACTERS_PER_MINUTE: CANARY,
      MAX_MESSAGE_BYTES: CANARY,
      ADMIN_TOKEN: CANARY,
      METRICS_PORT: CANARY,
      UNIX_SOCKET: CANARY,
      DRAIN_DELAY_SECONDS: CANARY,
      REDIS_PREFIX: `${CANARY}*`,
      LOG_LEVEL: CANARY,
    };
    expect(atFault(environment).toSorted()).toEqual(Object.keys(environment).toSorted());
    expect(JSON.stringify(faultsOf(environment))).not.toContain(CANARY);
  });

  test("reading never throws, and never repeats a value, whatever the environment contains", () => {
    const names = [
      "HOST",
      "PORT",
      "JWT_SECRET",
      "JWT_JWKS_URL",
      "SESSION_SECRET",
      "ALLOWED_ORIGINS",
      "EMBED_ORIGINS",
      "LOGIN_URL",
      "PUBLIC_URL",
      "UPSTASH_REDIS_REST_URL",
      "UPSTASH_REDIS_REST_TOKEN",
      "REDIS_URL",
      "LOG_LEVEL",
      "NODE_ENV",
    ];
    const value = fc.oneof(
      fc.string({ unit: "grapheme" }),
      fc.webUrl(),
      fc.string().map((text) => `https://${text}`),
      fc.string({ minLength: MIN_SECRET_BYTES }),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...names), value), (values) => {
        const marked = Object.fromEntries(
          Object.entries(values).map(([name, text]) => [name, `${text}${CANARY}`]),
        );
        expect(JSON.stringify(faultsOf(marked))).not.toContain(CANARY);
        readConfig(values);
      }),
    );
  });
});
