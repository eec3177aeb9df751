import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from "jose";
import { signToken } from "../../src/gate/token.ts";
import { TOKEN_SECRET } from "../support/people.ts";

/** Hands the issuer's private key down to the processes of crowd and abuser; without one there is a secret. */
export const KEY_VARIABLE = "ABUSE_KEY";
const ALGORITHM = "ES256";

const text = process.env[KEY_VARIABLE];
const key = text ? importJWK(JSON.parse(text), ALGORITHM) : undefined;

/** A new key of an issuer's, to sign with and to be published. */
export async function newKey(): Promise<{ secret: string; shared: JWK }> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
  const jwk = await exportJWK(privateKey);
  const { d: _, ...shared } = jwk;
  return { secret: JSON.stringify(jwk), shared: { ...shared, alg: ALGORITHM } };
}

/** An hour's token of a session of its own; `session: false`: one that names none. */
export async function tokenOf(user: string, { session = true } = {}): Promise<string> {
  const nowMs = Date.now();
  const expiresAtMs = nowMs + 3_600_000;
  const iat = Math.floor(nowMs / 1000);
  const claims = session ? { jti: crypto.randomUUID(), iat } : { iat, nonce: Math.random() };
  if (!key) return signToken({ secret: TOKEN_SECRET, user, expiresAtMs, claims });
  return new SignJWT({ sub: user, ...claims, exp: Math.floor(expiresAtMs / 1000) })
    .setProtectedHeader({ alg: ALGORITHM, typ: "JWT" })
    .sign(await key);
}

/** The same token with a signature that is none. */
export function withBadSignature(token: string): string {
  const [header, payload, signature = ""] = token.split(".");
  return [
    header,
    payload,
    Buffer.alloc(Buffer.from(signature, "base64url").length, 7).toString("base64url"),
  ].join(".");
}

/** The order of P-256. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** The same token with the other signature that ECDSA has for it, (r, n - s); `undefined` for other algorithms. */
export function withOtherSignature(token: string): string | undefined {
  if (!key) return undefined;
  const [header, payload, signature = ""] = token.split(".");
  const hex = Buffer.from(signature, "base64url").toString("hex");
  const other = (ORDER - BigInt(`0x${hex.slice(64)}`)).toString(16).padStart(64, "0");
  const rewritten = Buffer.from(hex.slice(0, 64) + other, "hex").toString("base64url");
  return [header, payload, rewritten].join(".");
}
