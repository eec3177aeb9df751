import { describe, expect, spyOn, test } from "bun:test";
import { createGate } from "../../src/gate/gate.ts";
import type { UserOptions } from "../../src/gate/gate-options.ts";
import { BARE_ORIGIN, bareGate } from "../support/gate.ts";
import { forge, issuerKey } from "../support/keys.ts";
import { TOKEN_SECRET } from "../support/people.ts";

const OLD = "the secret before this one, of 32 bytes or more";
const HEADER = { alg: "HS256", typ: "JWT" };

/** What a gate with these keys answers to a token that is valid for an hour. */
async function statusOf(
  users: UserOptions,
  sign: (claims: Record<string, unknown>) => string | Promise<string>,
): Promise<number> {
  const { send, clock } = bareGate({ users });
  const token = await sign({ sub: "alice", exp: clock.nowMs() / 1000 + 3_600 });
  const headers = { Authorization: `Bearer ${token}` };
  return (await send("/api/auth/ws-ticket", { method: "POST", headers })).status;
}

describe("a secret that was changed", () => {
  const users = { secret: TOKEN_SECRET, previousSecret: OLD };

  test.each(["HS256", "HS384", "HS512"])("accepts %s tokens of either", async (alg) => {
    for (const secret of [TOKEN_SECRET, OLD]) {
      const hash = alg.replace("HS", "sha");
      const sign = (claims: object) => forge({ ...HEADER, alg }, claims, { secret, hash });
      expect(await statusOf(users, sign)).toBe(200);
    }
  });

  test("accepts none of a third, nor the previous one's once it is gone", async () => {
    const sign = (claims: object) => forge(HEADER, claims, { secret: `${OLD}.` });
    expect(await statusOf(users, sign)).toBe(401);
    const late = (claims: object) => forge(HEADER, claims, { secret: OLD });
    expect(await statusOf({ secret: TOKEN_SECRET }, late)).toBe(401);
  });

  test("is checked as the secret is", () => {
    const make = (previousSecret: string) => () =>
      createGate({ users: { secret: TOKEN_SECRET, previousSecret } });
    expect(make("short")).toThrow("Option users.previousSecret must be at least 32 bytes");
    const visitors = { secret: TOKEN_SECRET, previousSecret: "short" };
    expect(() => createGate({ users: () => undefined, visitors })).toThrow(
      "Option visitors.previousSecret must be at least 32 bytes",
    );
  });
});

describe("public keys of one's own", () => {
  test.each(["RS256", "PS256", "ES256", "EdDSA"])("verify %s, by kid", async (alg) => {
    const [one, two] = await Promise.all([issuerKey(alg, "one"), issuerKey("ES384", "two")]);
    const publicKeys = { keys: [one.jwk, two.jwk] as never[] };
    expect(await statusOf({ publicKeys }, (claims) => one.sign(claims))).toBe(200);
    const stranger = (claims: Record<string, unknown>) => one.sign(claims, { kid: "three" });
    expect(await statusOf({ publicKeys }, stranger)).toBe(401);
  });

  test("without a kid are good for tokens with any, and with none", async () => {
    const keys = [issuerKey("ES256"), issuerKey("ES256"), issuerKey("ES256")] as const;
    const [first, second, stranger] = await Promise.all(keys);
    const publicKeys = {
      keys: [first, second].map(({ jwk: { alg: _, ...jwk } }) => jwk) as never[],
    };
    for (const header of [{}, { kid: "any" }]) {
      for (const key of [first, second]) {
        expect(await statusOf({ publicKeys }, (claims) => key.sign(claims, header))).toBe(200);
      }
      expect(await statusOf({ publicKeys }, (claims) => stranger.sign(claims, header))).toBe(401);
    }
  });

  test("look at a good token's signature once, at another one's every time", async () => {
    const key = await issuerKey("ES256", "one");
    const { send, clock } = bareGate({ users: { publicKeys: { keys: [key.jwk] as never[] } } });
    const good = await key.sign({ sub: "alice", exp: clock.nowMs() / 1000 + 3_600 });
    const bad = `${good.slice(0, good.lastIndexOf("."))}.${"A".repeat(86)}`;
    using looks = spyOn(crypto.subtle, "verify");
    for (const [token, status, most] of [
      [good, 200, 1],
      [bad, 401, 6],
      [good, 200, 6],
    ] as const) {
      for (let time = 0; time < 5; time++) {
        const headers = { Authorization: `Bearer ${token}` };
        const answer = await send("/api/auth/ws-ticket", { method: "POST", headers });
        expect(answer.status).toBe(status);
      }
      expect(looks).toHaveBeenCalledTimes(most);
    }
  });

  test("are used ten times a second for an address that keeps failing, and always for what was good before", async () => {
    const key = await issuerKey("ES256", "one");
    const { gate, clock } = bareGate({ users: { publicKeys: { keys: [key.jwk] as never[] } } });
    const sign = (user: string) => key.sign({ sub: user, exp: clock.nowMs() / 1000 + 3_600 });
    const mint = async (token: string, socketAddress = "192.0.2.1") => {
      const headers = { Authorization: `Bearer ${token}` };
      const request = new Request(`${BARE_ORIGIN}/api/auth/ws-ticket`, { method: "POST", headers });
      return (await gate.fetch(request, { socketAddress })).status;
    };
    const [known, fresh, other] = await Promise.all(["alice", "bob", "carol"].map(sign));
    const bad = `${known?.slice(0, known.lastIndexOf("."))}.${"A".repeat(86)}`;
    expect(await mint(known as string)).toBe(200);
    for (let n = 0; n < 130; n++) expect([n, await mint(bad)]).toEqual([n, 401]);
    using looks = spyOn(crypto.subtle, "verify");
    for (let n = 0; n < 50; n++) {
      expect(await mint(bad)).toBe(429);
      expect(await mint(known as string)).toBe(200);
    }
    expect(await mint(fresh as string)).toBe(429);
    expect(looks).not.toHaveBeenCalled();
    expect(await mint(other as string, "192.0.2.2")).toBe(200);
    clock.advance(100);
    expect(await mint(fresh as string)).toBe(200);
  });

  test("are no secret: HS256 with one of them as the key is refused", async () => {
    const { jwk } = await issuerKey("ES256");
    const secret = JSON.stringify(jwk);
    const sign = (claims: object) => forge(HEADER, claims, { secret });
    expect(await statusOf({ publicKeys: { keys: [jwk] as never[] } }, sign)).toBe(401);
  });

  test.each<[string, unknown]>([
    ["no keys", { keys: [] }],
    ["no list", {}],
    ["a private key", { keys: [{ kty: "EC", crv: "P-256", x: "x", y: "y", d: "canary" }] }],
    ["a secret key", { keys: [{ kty: "oct", k: "canary" }] }],
    ["a short RSA key", { keys: [{ kty: "RSA", e: "AQAB", n: "canary" }] }],
    ["an unknown kind", { keys: [{ kty: "canary" }] }],
  ])("with %s throw, and show none of it", (_, publicKeys) => {
    let message = "";
    try {
      createGate({ users: { publicKeys } as never });
    } catch (error) {
      message = String(error);
    }
    expect(message).toMatch(/^TypeError: Option users.publicKeys must /);
    expect(message).not.toContain("canary");
  });

  test("beside a secret or a URL throw", () => {
    const users = { publicKeys: { keys: [] }, secret: TOKEN_SECRET };
    expect(() => createGate({ users } as never)).toThrow(
      "either a secret, a jwksUrl or publicKeys",
    );
  });
});

test("a jwksUrl of plain http needs allowHttp, and true at that", () => {
  const jwksUrl = "http://id.internal/jwks";
  const make = (allowHttp?: unknown) => () =>
    createGate({ users: { jwksUrl, allowHttp } as never });
  expect(make()).toThrow("Option users.jwksUrl must be https");
  expect(make("1")).toThrow("Option users.jwksUrl must be https");
  expect(make(true)).not.toThrow();
});
