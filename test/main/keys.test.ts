import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { importPKCS8, SignJWT } from "jose";
import { readConfig } from "../../src/config.ts";
import { certificateFor } from "../support/certificate.ts";
import { runCommand } from "../support/command.ts";
import { issuerKey, startKeyServer } from "../support/keys.ts";
import { SETTINGS, startInstance } from "../support/process.ts";
import { describeWith } from "../support/require.ts";

const HOUR = { exp: Math.floor(Date.now() / 1000) + 3_600 };
const { SESSION_SECRET = "", JWT_SECRET = "" } = SETTINGS;
const OTHER_SECRET = "another secret of the tests, of 32 bytes or more";
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ws-ticket-keys-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function fileWith(text: string): Promise<string> {
  const path = join(folder, crypto.randomUUID());
  await Bun.write(path, text);
  return path;
}

function newPair(type: "rsa" | "ec") {
  const { publicKey, privateKey } =
    type === "rsa"
      ? generateKeyPairSync("rsa", { modulusLength: 2048 })
      : generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = (key: KeyObject, kind: "spki" | "pkcs1" | "pkcs8") =>
    String(key.export({ type: kind, format: "pem" } as never));
  return { publicKey, privateKey, pem };
}

async function signWith(pkcs8: string, alg: string, kid?: string): Promise<string> {
  return new SignJWT({ sub: "alice", ...HOUR })
    .setProtectedHeader({ alg, ...(kid && { kid }) })
    .sign(await importPKCS8(pkcs8, alg));
}

async function mintWith(server: { origin: string }, token: string): Promise<number> {
  const headers = { Authorization: `Bearer ${token}` };
  return (await fetch(`${server.origin}/api/auth/ws-ticket`, { method: "POST", headers })).status;
}

/** What the settings are at fault for with this file. */
function faultsOf(JWT_PUBLIC_KEYS: string): readonly unknown[] {
  const read = readConfig({ SESSION_SECRET, JWT_PUBLIC_KEYS });
  return read.ok ? [] : read.faults;
}

describe("JWT_PUBLIC_KEYS", () => {
  test("names a PEM file with public keys, of which any may have signed", async () => {
    const [rsa, ec, stranger] = [newPair("rsa"), newPair("ec"), newPair("ec")];
    const text = `# Ours\n${rsa.pem(rsa.publicKey, "pkcs1")}\n${ec.pem(ec.publicKey, "spki")}`;
    const settings = { JWT_SECRET: "", JWT_PUBLIC_KEYS: await fileWith(text) };
    await using server = await startInstance(settings);
    expect(await mintWith(server, await signWith(rsa.pem(rsa.privateKey, "pkcs8"), "PS256"))).toBe(
      200,
    );
    const ofEc = await signWith(ec.pem(ec.privateKey, "pkcs8"), "ES256", "k1");
    expect(await mintWith(server, ofEc)).toBe(200);
    const foreign = await signWith(stranger.pem(stranger.privateKey, "pkcs8"), "ES256");
    expect(await mintWith(server, foreign)).toBe(401);
    const environment = { ...SETTINGS, ...settings };
    const { code, stdout } = await runCommand(["check"], { environment });
    expect([code, stdout]).toEqual([0, expect.stringContaining("readable: RSA, P-256")]);
    const token = await runCommand(["check", "--token", "token"], {
      ...{ environment, files: { token: ofEc } },
    });
    expect([token.code, token.stdout]).toEqual([0, expect.stringContaining("accepts it")]);
  });

  test("names a JWKS file", async () => {
    const key = await issuerKey("ES256", "k1");
    const JWT_PUBLIC_KEYS = await fileWith(JSON.stringify({ keys: [key.jwk] }));
    await using server = await startInstance({ JWT_SECRET: "", JWT_PUBLIC_KEYS });
    expect(await mintWith(server, await key.sign({ sub: "alice", ...HOUR }))).toBe(200);
  });

  test("is a fault of its own with anything else in it, and shows none of it", async () => {
    const pair = newPair("ec");
    const small = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey;
    const jwk = pair.privateKey.export({ format: "jwk" });
    const texts = [
      ["must have no private", pair.pem(pair.privateKey, "pkcs8")],
      ["must have no private", JSON.stringify({ keys: [jwk] })],
      ["must have no RSA key under", String(small.export({ type: "spki", format: "pem" }))],
      ["must be a JWKS", "canary"],
      ["must be a JWKS", JSON.stringify({ keys: [{ kty: "EC", crv: "P-256", x: "canary" }] })],
      ["must be a JWKS", "-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----"],
      ["must have at least one", "-----BEGIN PUBLIC KEY-----\ncanary"],
      ["must have at least one", "{}"],
      ["must be a file of 256 KB", "x".repeat(300_000)],
    ] as const;
    for (const [note, text] of texts) {
      const faults = faultsOf(await fileWith(text));
      expect(faults).toEqual([
        { variable: "JWT_PUBLIC_KEYS", note: expect.stringContaining(note) },
      ]);
      expect(JSON.stringify(faults)).not.toContain("canary");
    }
    expect(faultsOf("/no/such/file")).toEqual([
      { variable: "JWT_PUBLIC_KEYS", note: "can't be read: ENOENT" },
    ]);
    expect(faultsOf("/dev/zero")).toMatchObject([{ note: expect.stringContaining("a file of") }]);
  });

  test("is one of three: any two of them are a fault", async () => {
    const sources: Record<string, string> = {
      ...{ JWT_SECRET, JWT_JWKS_URL: "https://id.example/jwks" },
      JWT_PUBLIC_KEYS: await fileWith(JSON.stringify({ keys: [(await issuerKey("ES256")).jwk] })),
    };
    for (const left of Object.keys(sources)) {
      const read = readConfig({ SESSION_SECRET, ...sources, [left]: "" });
      const [first, second] = Object.keys(sources).filter((variable) => variable !== left);
      expect(read).toEqual({
        ok: false,
        faults: [{ variable: second as string, note: `and ${first} are mutually exclusive` }],
      });
    }
  });
});

describeWith("openssl")("a certificate in JWT_PUBLIC_KEYS", () => {
  test("is read for its public key", async () => {
    const { key, cert } = await certificateFor("DNS:id.example");
    const settings = { JWT_SECRET: "", JWT_PUBLIC_KEYS: await fileWith(cert) };
    await using server = await startInstance(settings);
    expect(await mintWith(server, await signWith(key, "ES256"))).toBe(200);
  });
});

describe("JWT_JWKS_URL with plain http", () => {
  test("is a fault beyond loopback, and works with JWT_JWKS_ALLOW_HTTP=1", async () => {
    const key = await issuerKey("ES256", "k1");
    await using keyServer = startKeyServer(key);
    // No name of loopback's, and on Linux it leads there all the same.
    const JWT_JWKS_URL = keyServer.url.href.replace("127.0.0.1", "0.0.0.0");
    expect(readConfig({ SESSION_SECRET, JWT_JWKS_URL })).toMatchObject({
      ...{ ok: false, faults: [{ variable: "JWT_JWKS_URL" }] },
    });
    const settings = { JWT_SECRET: "", JWT_JWKS_URL, JWT_JWKS_ALLOW_HTTP: "1" };
    await using server = await startInstance(settings);
    expect(await mintWith(server, await key.sign({ sub: "alice", ...HOUR }))).toBe(200);
    const { stdout } = await runCommand(["check"], { environment: { ...SETTINGS, ...settings } });
    expect(stdout).toMatch(/warn +JWT_JWKS_URL +plain http/);
  });

  test.each(["0", "true", "yes"])("isn't allowed by JWT_JWKS_ALLOW_HTTP=%s", (value) => {
    const read = readConfig({ ...SETTINGS, JWT_JWKS_ALLOW_HTTP: value });
    expect(read).toEqual({
      ...{ ok: false, faults: [{ variable: "JWT_JWKS_ALLOW_HTTP", note: "must be 1" }] },
    });
  });
});

describe("a change of secrets", () => {
  test("lets in what the previous ones have signed, and signs with the new ones alone", async () => {
    const post = (origin: string, cookie = "") =>
      fetch(`${origin}/api/auth/anonymous-session`, {
        method: "POST",
        headers: { Cookie: cookie },
      });
    const cookieOf = (response: Response) =>
      response.headers.get("set-cookie")?.split(";")[0] as string;
    const idOf = (cookie: string) => cookie.split(".")[1];

    await using before = await startInstance();
    const token = await before.token("alice");
    const cookie = await before.visitorCookie();
    const changed = { JWT_SECRET: OTHER_SECRET, SESSION_SECRET: `${OTHER_SECRET}, too` };
    await using during = await startInstance({
      ...changed,
      JWT_SECRET_PREVIOUS: JWT_SECRET,
      SESSION_SECRET_PREVIOUS: SESSION_SECRET,
    });
    expect(await mintWith(during, token)).toBe(200);
    await using visitor = await during.openVisitor(cookie);
    const renewed = cookieOf(await post(during.origin, cookie));
    expect(idOf(renewed)).toBe(idOf(cookie));

    await using after = await startInstance(changed);
    expect(await mintWith(after, token)).toBe(401);
    expect(idOf(cookieOf(await post(after.origin, cookie)))).not.toBe(idOf(cookie));
    expect(idOf(cookieOf(await post(after.origin, renewed)))).toBe(idOf(cookie));
    // Nor does the old server know the new one's.
    expect(idOf(cookieOf(await post(before.origin, renewed)))).not.toBe(idOf(cookie));
    visitor.socket.close();
  });

  test("needs the new secret beside the previous one", () => {
    const read = readConfig({
      ...{ JWT_SECRET_PREVIOUS: JWT_SECRET, SESSION_SECRET_PREVIOUS: SESSION_SECRET },
      JWT_JWKS_URL: "https://id.example/jwks",
    });
    expect(read).toEqual({
      ok: false,
      faults: [
        { variable: "JWT_SECRET_PREVIOUS", note: "needs JWT_SECRET beside it" },
        { variable: "SESSION_SECRET_PREVIOUS", note: "needs SESSION_SECRET beside it" },
        { variable: "SESSION_SECRET", note: "is required" },
      ],
    });
  });
});
