import type { Context, MiddlewareHandler } from "hono";
import type { Deps } from "./gate.ts";
import { isAllowedOrigin } from "../request/origin.ts";
import { limitKey, peerAddress } from "../request/address.ts";
import { type Refusal, refuse, refuseFor, refusalResponse } from "../request/refusal.ts";
import { readBearer, type TokenUser } from "./token.ts";
import { urlOf } from "../request/url.ts";

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

/** How long a browser may keep the answer to a preflight, in seconds. */
const PREFLIGHT_MAX_AGE_SECONDS = 600;

/**
 * Lets the allowed origins read the answers (CORS), and nobody else. Not by hono/cors, which makes an answer
 * before there is one to put its headers on: that costs as much as a ticket.
 */
export function allowOrigins(
  deps: Deps,
  { credentials, methods }: { credentials: boolean; methods: string[] },
): MiddlewareHandler<AppEnv> {
  const preflight = {
    "Access-Control-Allow-Methods": methods.join(","),
    "Access-Control-Allow-Headers": "Authorization,Content-Type",
    "Access-Control-Max-Age": String(PREFLIGHT_MAX_AGE_SECONDS),
  };
  return async (c, next) => {
    const { headers: asked, method } = c.req.raw;
    const allowed = isAllowedOrigin(c.req.raw, urlOf(c.req.raw), deps.origins);
    if (allowed && method === "OPTIONS" && asked.has("access-control-request-method")) {
      c.res = new Response(null, { status: 204, headers: preflight });
    } else {
      await next();
    }
    const { headers } = c.res;
    headers.append("Vary", "Origin");
    if (!allowed) return;
    headers.set("Access-Control-Allow-Origin", asked.get("origin") as string);
    headers.set("Access-Control-Expose-Headers", "Retry-After");
    if (credentials) headers.set("Access-Control-Allow-Credentials", "true");
  };
}

/** The last handler of a path: every other method. */
export function allowMethods(methods: string): () => Response {
  return () => refusalResponse(refuse("method_not_allowed", { Allow: methods }));
}
