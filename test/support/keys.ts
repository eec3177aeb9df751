import { createHmac } from "node:crypto";
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from "jose";
import { TOKEN_SECRET } from "./server.ts";

/**
 * A token put together by hand, so that it can be as wrong as a test needs it. Strings stand for their own
 * text, everything else for its JSON; the HMAC covers what comes out, whether it makes sense or not.
 */
export function forge(
  header: unknown,
  payload: unknown,
  { secret = TOKEN_SECRET, hash = "sha256" }: { secret?: string | Uint8Array; hash?: string } = {},
): string {
  const signed = [header, payload].map(segment).join(".");
  return `${signed}.${createHmac(hash, secret).update(signed).digest("base64url")}`;
}

/** One part of a token in base64url. */
export function segment(content: unknown): string {
  const text = typeof content === "string" ? content : JSON.stringify(content);
  return Buffer.from(text).toString("base64url");
}

/** A key pair of an issuer's: the public half as it stands in a key set, and what signs with the other. */
export interface IssuerKey {
  readonly jwk: JWK;
  /** Signs with the key's `kid` in the header, unless `header` says otherwise. */
  sign(claims: Record<string, unknown>, header?: Record<string, unknown>): Promise<string>;
}

let rsaPair: Promise<JWK> | undefined;

/** A new key for `alg`. Without a `kid` neither the key nor its tokens have one. The RSA pair is always the same: making one takes long. */
export async function issuerKey(alg: string, kid?: string): Promise<IssuerKey> {
  const isRsa = /^[RP]S/.test(alg);
  const secretJwk = await (isRsa ? (rsaPair ??= exportPrivate("RS256")) : exportPrivate(alg));
  const { d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...publicJwk } = secretJwk;
  const key = await importJWK({ ...secretJwk, alg }, alg);
  return {
    jwk: { ...publicJwk, alg, use: "sig", ...(kid !== undefined && { kid }) },
    sign: (claims, header) =>
      new SignJWT(claims)
        .setProtectedHeader({ alg, typ: "JWT", ...(kid !== undefined && { kid }), ...header })
        .sign(key),
  };
}

async function exportPrivate(alg: string): Promise<JWK> {
  return exportJWK((await generateKeyPair(alg, { extractable: true })).privateKey);
}

/** An issuer's key server on loopback: what it answers can change, and its requests are counted. */
export interface KeyServer extends AsyncDisposable {
  readonly url: URL;
  /** Paths requested so far. */
  readonly requests: readonly string[];
  /** Answers with a set of these keys from now on. */
  publish(...keys: (JWK | IssuerKey)[]): void;
  /** Answers with whatever this returns from now on. */
  answer(handler: () => Response | Promise<Response>): void;
}

export function startKeyServer(...keys: (JWK | IssuerKey)[]): KeyServer {
  const requests: string[] = [];
  let handler: () => Response | Promise<Response>;
  const self = {
    answer(next: typeof handler) {
      handler = next;
    },
    publish(...published: (JWK | IssuerKey)[]) {
      const body = { keys: published.map((key) => ("sign" in key ? (key as IssuerKey).jwk : key)) };
      handler = () => Response.json(body);
    },
  };
  self.publish(...keys);
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    development: false,
    fetch(request) {
      requests.push(new URL(request.url).pathname);
      return handler();
    },
    error: () => new Response(null, { status: 500 }),
  });
  return {
    ...self,
    url: new URL("/jwks.json", server.url),
    requests,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}
