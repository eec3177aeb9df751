import { type Context, Hono, type MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { PatternRouter } from "hono/router/pattern-router";
import { faultCode, type Log } from "../lib/log.ts";
import { headersFor, type Incoming, preflightResponse, type Sharing } from "./incoming.ts";
import { type Refusal, refusalResponse, refuse } from "./refusal.ts";
import { readTicket } from "./url.ts";

/** Largest body of a request, in bytes: none needs more than a few words. */
const MAX_BODY_BYTES = 16 * 1024;

/** What every route is given. */
export interface RouteEnv {
  Bindings: { incoming: Incoming };
}

/**
 * A Hono app whose URLs were parsed already and whose failures are refusals. Everything below it is refused
 * that has a credential in its URL, or more than one spelling.
 */
export function createRoutes(log: Log): Hono<RouteEnv> {
  const app = new Hono<RouteEnv>({
    getPath: (_, options) => (options?.env as RouteEnv["Bindings"]).incoming.url.pathname,
    // Hono's usual router compiles all routes at the first request, which is a third of the time to start.
    router: new PatternRouter(),
  });
  app.use(async (c, next) => {
    const { url } = c.env.incoming;
    // To the router a trailing slash makes no difference.
    if (/.\/$/.test(url.pathname)) return refused(c, refuse("not_found"));
    const ticket = readTicket(url);
    return ticket.ok ? next() : declined(c, ticket, log);
  });
  app.onError((error, c) => {
    log("error", "request_failed", { code: faultCode(error) });
    return refused(c, refuse("internal_error"));
  });
  app.notFound((c) => refused(c, refuse("not_found")));
  return app;
}

type RouteContext = Pick<Context<RouteEnv>, "env">;

/** A refusal as the route's response. */
export function refused({ env }: RouteContext, refusal: Refusal, sharing?: Sharing): Response {
  return refusalResponse(refusal, headersFor(env.incoming, sharing));
}

/** The same, with a line in the log. */
export function declined(c: RouteContext, refusal: Refusal, log: Log, sharing?: Sharing): Response {
  const peer = c.env.incoming.address;
  log("info", "refused", { code: refusal.code, ...(peer && { peer }) });
  return refused(c, refusal, sharing);
}

/** The last handler of a path: refuses every other method. */
export function allowMethods(methods: string, sharing?: Sharing): (c: RouteContext) => Response {
  return (c) => refused(c, refuse("method_not_allowed", { Allow: methods }), sharing);
}

/** Answers preflights of allowed origins (CORS). */
export function allowOrigins(sharing: Sharing): MiddlewareHandler<RouteEnv> {
  return async (c, next) => preflightResponse(c.env.incoming, sharing) ?? (await next());
}

const limitReading: MiddlewareHandler<RouteEnv> = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: (c) => refused(c as unknown as RouteContext, refuse("body_too_large")),
});

/** Refuses a body that is too large. Skipped when the body is empty: the check costs more than a ticket. */
export const limitBody: MiddlewareHandler<RouteEnv> = (c, next) => {
  const { headers } = c.env.incoming.request;
  const isEmpty =
    (headers.get("content-length") ?? "0") === "0" && !headers.has("transfer-encoding");
  return isEmpty ? next() : limitReading(c, next);
};
