import { describe, expect, test } from "bun:test";
import { inspectSettings } from "../../src/check/settings.ts";
import { readConfig, variables } from "../../src/config.ts";

/** Nothing to complain of. */
const GOOD: Record<string, string> = {
  JWT_SECRET: "a secret for tokens, long enough by far",
  SESSION_SECRET: "a secret for cookies, long enough, too",
  JWT_ISSUER: "https://id.example",
  JWT_AUDIENCE: "chat",
};
const PROXIED = { PUBLIC_URL: "https://chat.example", TRUST_PROXY: "1", HOST: "0.0.0.0" };

/** The settings that are warned of. */
function warned(environment: Record<string, string>): string[] {
  const read = readConfig(environment);
  if (!read.ok) throw new Error(`Faults: ${JSON.stringify(read.faults)}`);
  const reports = inspectSettings(read.config, environment);
  for (const { level, found, note } of reports) {
    expect(found).not.toBe("");
    if (level === "warn") expect(note).toMatch(/^[A-Z].*[^.]$/);
  }
  return reports.filter(({ level }) => level !== "ok").map(({ subject }) => subject);
}

test("good settings are not warned of, nor is the demo", () => {
  expect(warned(GOOD)).toEqual([]);
  expect(warned({ ...GOOD, ...PROXIED })).toEqual([]);
  expect(warned({ ...GOOD, ...PROXIED, ALLOWED_ORIGINS: "https://chat.example" })).toEqual([]);
  expect(warned({})).toEqual([]);
  for (const url of ["https://id.example/jwks", "http://127.0.0.1/jwks"]) {
    expect(warned({ ...GOOD, JWT_SECRET: "", JWT_JWKS_URL: url })).toEqual([]);
  }
});

describe("a warning of", () => {
  const { JWT_ISSUER: _issuer, ...noIssuer } = GOOD;
  const { JWT_AUDIENCE: _audience, ...noAudience } = GOOD;

  test.each<[string, Record<string, string>, string]>([
    ["no issuer", noIssuer, "JWT_ISSUER"],
    ["no audience", noAudience, "JWT_AUDIENCE"],
    [
      "one secret for both",
      { ...GOOD, SESSION_SECRET: GOOD.JWT_SECRET as string },
      "SESSION_SECRET",
    ],
    [
      "the own origin missing from the list",
      { ...GOOD, ...PROXIED, ALLOWED_ORIGINS: "https://app.example" },
      "ALLOWED_ORIGINS",
    ],
    ["no public URL behind a proxy", { ...GOOD, TRUST_PROXY: "1" }, "PUBLIC_URL"],
    ["no public URL on every address", { ...GOOD, HOST: "0.0.0.0" }, "PUBLIC_URL"],
    ["no trusted proxy behind https", { ...GOOD, ...PROXIED, TRUST_PROXY: "0" }, "TRUST_PROXY"],
    [
      "a file that isn't used",
      { ...GOOD, REDIS_URL: "redis://127.0.0.1", CHAT_DATABASE: "chat.sqlite" },
      "CHAT_DATABASE",
    ],
    [
      "a secret that is its own predecessor",
      { ...GOOD, SESSION_SECRET_PREVIOUS: GOOD.SESSION_SECRET as string },
      "SESSION_SECRET_PREVIOUS",
    ],
    [
      "keys that come in the clear",
      {
        ...{ ...GOOD, JWT_SECRET: "", JWT_JWKS_ALLOW_HTTP: "1" },
        JWT_JWKS_URL: "http://id.internal/jwks",
      },
      "JWT_JWKS_URL",
    ],
    [
      "certificates that nobody verifies",
      { ...GOOD, NODE_TLS_REJECT_UNAUTHORIZED: "0" },
      "NODE_TLS_REJECT_UNAUTHORIZED",
    ],
  ])("%s", (_, environment, subject) => {
    expect(warned(environment)).toEqual([subject]);
  });

  test.each([
    ["PUBLIC_URI", "PUBLIC_URL"],
    ["ALLOWED_ORIGIN", "ALLOWED_ORIGINS"],
    ["TRUSTED_PROXY", "TRUST_PROXY"],
    ["JWT_AUDIANCE", "JWT_AUDIENCE"],
    ["REDIS_URI", "REDIS_URL"],
    ["SESION_SECRET", "SESSION_SECRET"],
    ["metrics_port", "METRICS_PORT"],
    ["PROT", "PORT"],
  ])("%s, which is %s with a slip", (name, meant) => {
    const { [meant]: _, ...environment } = GOOD;
    const read = readConfig({ ...GOOD });
    if (!read.ok) throw new Error("No configuration");
    const [report] = inspectSettings(read.config, { ...environment, [name]: "canary" });
    expect(report).toMatchObject({ level: "warn", subject: name, found: `not read: ${meant} is` });
    expect(JSON.stringify(report)).not.toContain("canary");
    // Set under its own name, too, it isn't missing.
    const both = inspectSettings(read.config, { ...environment, [name]: "x", [meant]: "y" });
    expect(both.map(({ subject }) => subject)).not.toContain(name);
  });
});

test("what shells and systems set is no slip of a setting's name", () => {
  const usual = [
    ...["PATH", "PWD", "HOME", "HOSTNAME", "SHELL", "TERM", "USER", "LOGNAME", "LANG", "TZ", "_"],
    ...["SHLVL", "EDITOR", "PAGER", "MAIL", "TMPDIR", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "CI"],
    ...["INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST", "DEBUG"],
    ...["KUBERNETES_PORT", "REDIS_PORT", "REDIS_HOST", "LC_ALL", "XDG_RUNTIME_DIR", "DISPLAY"],
  ];
  const environment = Object.fromEntries(usual.map((name) => [name, "x"]));
  expect(warned({ ...GOOD, ...environment })).toEqual([]);
});

test("no setting's own name is a slip of another's", () => {
  for (const name of variables()) expect(warned({ ...GOOD, [name]: GOOD[name] ?? "" })).toEqual([]);
});
