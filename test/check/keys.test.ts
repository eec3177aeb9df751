import { describe, expect, test } from "bun:test";
import { inspectAddress } from "../../src/check/address.ts";
import { inspectKeys, inspectPublicKeys } from "../../src/check/keys.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { certificateFor } from "../support/certificate.ts";
import { issuerKey, startKeyServer } from "../support/keys.ts";
import { startServer } from "../support/server.ts";
import { freePort } from "../support/redis.ts";
import { describeWith } from "../support/require.ts";

const OPTIONS = { clock: systemClock };

async function keysAt(url: URL): Promise<string[]> {
  const reports = await inspectKeys(url, OPTIONS);
  return reports.map(({ level, found }) => `${level}: ${found}`);
}

describe("JWT_JWKS_URL", () => {
  test("is reachable, with the algorithms and ids of its keys", async () => {
    const [ec, rsa, ed] = await Promise.all([
      issuerKey("ES256", "a"),
      issuerKey("RS256", "b\u001b[31m"),
      issuerKey("EdDSA"),
    ]);
    const { alg: _, ...plain } = ed.jwk;
    await using server = startKeyServer(ec, rsa, plain, { kty: "oct", k: "AAAA" });
    expect(await keysAt(server.url)).toEqual(["ok: reachable: ES256 (a), RS256, Ed25519"]);
  });

  test.each<[string, () => Response, string]>([
    ["nothing", () => Response.json({ keys: [] }), "0 keys, none of them usable"],
    ["secrets", () => Response.json({ keys: [{ kty: "oct" }] }), "1 keys, none of them usable"],
    [
      "keys for encryption",
      () => Response.json({ keys: [{ kty: "EC", use: "enc" }, null] }),
      "2 keys, none of them usable",
    ],
    ["another object", () => Response.json({}), "answers 200 without a key set"],
    ["null", () => Response.json(null), "answers 200 without a key set"],
    ["404", () => Response.json({}, { status: 404 }), "answers 404 without a key set"],
    ["a page", () => new Response("<p>"), "can't be read: status_200_not_json"],
    ["a redirect", () => Response.redirect("/other"), "can't be read: redirected"],
  ])("with %s is a fault", async (_, answer, found) => {
    await using server = startKeyServer();
    server.answer(answer);
    expect(await keysAt(server.url)).toEqual([`fault: ${found}`]);
  });

  test("with a weak key is a warning", async () => {
    await using server = startKeyServer({ kty: "RSA", n: "A".repeat(171), e: "AQAB" });
    expect(await keysAt(server.url)).toEqual([
      "ok: reachable: RSA",
      "warn: an RSA key under 2,048 bits",
    ]);
  });

  test("that can't be reached is a fault, by its reason", async () => {
    expect(await keysAt(new URL(`http://127.0.0.1:${freePort()}/`))).toEqual([
      "fault: can't be read: connection_refused",
    ]);
    expect(await keysAt(new URL("http://no-such-host.invalid/"))).toEqual([
      "fault: can't be read: unknown_host",
    ]);
  });
});

test("JWT_PUBLIC_KEYS is readable, with the algorithms and ids of its keys", async () => {
  const [ec, rsa] = await Promise.all([issuerKey("ES256", "a"), issuerKey("RS256", "b")]);
  const keys = [ec.jwk, rsa.jwk, { kty: "oct", k: "AAAA" }];
  expect(inspectPublicKeys({ keys })).toEqual([
    { level: "ok", subject: "JWT_PUBLIC_KEYS", found: "readable: ES256 (a), RS256 (b)" },
  ]);
});

describeWith("openssl")("a certificate that nobody vouches for", () => {
  test("is named as the reason", async () => {
    const tls = await certificateFor("DNS:localhost");
    using server = Bun.serve({ port: 0, hostname: "127.0.0.1", tls, fetch: () => new Response() });
    const url = new URL(`https://localhost:${server.port}/`);
    expect(await keysAt(url)).toEqual(["fault: can't be read: bad_certificate"]);
    expect(await inspectAddress(url, OPTIONS)).toMatchObject([
      { level: "warn", found: "can't be reached: bad_certificate" },
    ]);
  });
});

describe("PUBLIC_URL", () => {
  test.each<[string, () => Response]>([
    ["something else", () => Response.json({ status: "up" })],
    ["a proxy without a server", () => Response.json({}, { status: 502 })],
    ["a page", () => new Response("<p>")],
    ["null", () => Response.json(null)],
    ["an API without this path", () => Response.json({ code: "not_found" }, { status: 404 })],
  ])("that leads to %s is a warning", async (_, answer) => {
    using server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
    const [report, ...more] = await inspectAddress(server.url, OPTIONS);
    expect([report?.level, more]).toEqual(["warn", []]);
    expect(report?.note).not.toContain("takes the path off");
  });

  test.each<[string, string, string, string]>([
    ["a server", "", "", "ok"],
    ["a server below a path", "/chat", "/chat", "ok"],
    ["a server that knows no path", "", "/chat", "warn"],
    ["another path", "/chat", "/talk", "warn"],
  ])("that leads to %s is %4$s", async (_, own, path, level) => {
    const port = freePort();
    const publicUrl = new URL(`http://127.0.0.1:${port}${own}`);
    await using _server = startServer({ port, publicUrl });
    const reports = await inspectAddress(new URL(path, publicUrl), OPTIONS);
    expect(reports).toMatchObject([{ level }]);
    if (level === "warn") expect(reports[0]?.note).toContain("takes the path off");
  });

  test("that can't be reached is a warning: the server may not run yet", async () => {
    const url = new URL(`http://127.0.0.1:${freePort()}/`);
    expect(await inspectAddress(url, OPTIONS)).toMatchObject([
      { level: "warn", found: "can't be reached: connection_refused" },
    ]);
  });
});
