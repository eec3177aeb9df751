import type { Context, MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import type { Deps } from "./deps.ts";
import { isAllowedOrigin } from "./origin.ts";
import { limitKey, peerAddress } from "./peer.ts";
import { type Refusal, refuse, refuseFor, refusalResponse } from "./refusal.ts";
import { readBearer, type TokenUser } from "./token.ts";
import { urlOf } from "./url.ts";

/** What a runtime adds to a request: the address of the connection, where it knows one. */
export interface AppEnv {
  Bindings: { socketAddress?: string | undefined };
}

/** As much of Hono's context as it takes to see who asks. */
type Asked = Pick<Context, "req" | "env">;

/** A refusal that needs no more than its code. */
export function answer(code: Refusal["code"]): Response {
  return refusalResponse(refuse(code));
}

/** A refusal, with its line in the log. */
export function decline(c: Asked, refusal: Refusal, deps: Deps): Response {
  const peer = peerOf(c, deps);
  deps.log("info", "refused", { code: refusal.code, ...(peer && { peer }) });
  return refusalResponse(refusal);
}

/** The user of the `Authorization` header, or why there is none. */
export async function bearerUser(
  c: Asked,
  deps: Deps,
): Promise<{ readonly ok: true; readonly user: TokenUser } | Refusal> {
  const { failures } = deps.limits;
  const bearer = readBearer(c.req.raw.headers.get("authorization"));
  if (!bearer.ok) return bearer;
  const peer = peerOf(c, deps);
  const waitMs = peer ? failures.waitMs(peer) : 0;
  if (waitMs > 0) return refuseFor(waitMs);
  const verified = await deps.verifyToken(bearer.token);
  if (!verified.ok && verified.code === "token_invalid" && peer) failures.count(peer);
  return verified;
}

export function peerOf(c: Asked, deps: Deps): string | undefined {
  return limitKey(peerAddress(c.req.raw, c.env?.socketAddress, deps.trustProxy));
}

/** Whether a page of somebody else's asks. */
export function isForeign(c: Asked, { origins }: Deps): boolean {
  const { raw } = c.req;
  return raw.headers.has("origin") && !isAllowedOrigin(raw, urlOf(raw), origins);
}

/** Lets the allowed origins read the answers (CORS), and nobody else. */
export function allowOrigins(
  deps: Deps,
  { credentials, methods }: { credentials: boolean; methods: string[] },
): MiddlewareHandler<AppEnv> {
  const allow = cors({
    origin: (origin) => origin,
    credentials,
    allowMethods: methods,
    allowHeaders: ["Authorization", "Content-Type"],
    exposeHeaders: ["Retry-After"],
    maxAge: 600,
  });
  return async (c, next) => {
    if (isAllowedOrigin(c.req.raw, urlOf(c.req.raw), deps.origins)) return allow(c, next);
    await next();
    // Afterwards: a refusal is an answer of its own and takes over nothing that was set before it.
    c.header("Vary", "Origin", { append: true });
  };
}

/** The last handler of a path: every other method. */
export function allowMethods(methods: string): () => Response {
  return () => refusalResponse(refuse("method_not_allowed", { Allow: methods }));
}
