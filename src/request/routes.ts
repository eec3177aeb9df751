import type { Context } from "hono";
import { Hono } from "hono/tiny";
import { faultCode, type Log } from "../lib/log.ts";
import { headersFor, type Incoming, preflightResponse, type Sharing } from "./incoming.ts";
import { type Refusal, refusalResponse, refuse } from "./refusal.ts";
import { readTicket } from "./url.ts";

/** Largest body of a request, in bytes: none needs more than a few words. */
const MAX_BODY_BYTES = 16 * 1024;

/** Most pieces that a body without a length may come in: each takes as long as a refusal. */
const MAX_BODY_PIECES = 64;

/** What every route is given. */
export interface RouteEnv {
  Bindings: { incoming: Incoming };
}

export type RouteContext = Context<RouteEnv>;
export type RouteHandler = (c: RouteContext) => Response | Promise<Response>;

/** Routes whose URLs were parsed already, and whose failures are refusals. */
export interface Routes {
  readonly app: Hono<RouteEnv>;
  /** Answers a request; refuses every URL with a credential in it, or with more than one spelling. */
  handle(incoming: Incoming): Response | Promise<Response>;
  /** Adds a path, with a handler for each method; `sharing` lets other allowed origins use it (CORS). */
  add(path: string, handlers: Readonly<Record<string, RouteHandler>>, sharing?: Sharing): void;
}

export function createRoutes(log: Log): Routes {
  const app = new Hono<RouteEnv>({
    getPath: (_, options) => (options?.env as RouteEnv["Bindings"]).incoming.url.pathname,
  });
  app.onError((error, c) => {
    log("error", "request_failed", { code: faultCode(error) });
    return refused(c, refuse("internal_error"));
  });
  app.notFound((c) => refused(c, refuse("not_found")));
  return {
    app,
    handle(incoming) {
      const { url, request } = incoming;
      const env = { incoming };
      // To the router a trailing slash makes no difference.
      if (url.pathname.length > 1 && url.pathname.endsWith("/")) {
        return refused({ env }, refuse("not_found"));
      }
      const ticket = readTicket(url);
      return ticket.ok ? app.fetch(request, env) : declined({ env }, ticket, log);
    },
    add(path, handlers, sharing) {
      const methods = Object.keys(handlers).flatMap((one) => (one === "GET" ? [one, "HEAD"] : one));
      const Allow = methods.join(", ");
      // One handler for each path: every further one would cost as much as the ticket's lookup.
      app.all(path, (c) => {
        const { incoming } = c.env;
        const preflight = sharing && preflightResponse(incoming, sharing);
        if (preflight) return preflight;
        const { method } = incoming.request;
        const handler = handlers[method === "HEAD" ? "GET" : method];
        if (!handler) return refused(c, refuse("method_not_allowed", { Allow }), sharing);
        return mayHaveBody(incoming) ? withinLimit(c, handler) : handler(c);
      });
    },
  };
}

/** A refusal as the route's response. */
export function refused(
  { env }: Pick<RouteContext, "env">,
  refusal: Refusal,
  sharing?: Sharing,
): Response {
  return refusalResponse(refusal, headersFor(env.incoming, sharing));
}

/** The same, with a line in the log. */
export function declined(
  c: Pick<RouteContext, "env">,
  refusal: Refusal,
  log: Log,
  sharing?: Sharing,
): Response {
  const peer = c.env.incoming.address;
  const { code, fault } = refusal;
  log("info", "refused", { code, ...(fault && { fault }), ...(peer && { peer }) });
  return refused(c, refusal, sharing);
}

/** Whether a request may have a body. Looking at one costs more than a ticket, so headers that settle it come first. */
function mayHaveBody({ request }: Incoming): boolean {
  const { method, headers } = request;
  if (headers.has("transfer-encoding")) return true;
  const length = headers.get("content-length");
  if (length !== null) return length !== "0";
  // HTTP/2 needs neither header.
  return method !== "GET";
}

/** Refuses a body that is too large, whether it says so or not. */
async function withinLimit(c: RouteContext, handler: RouteHandler): Promise<Response> {
  const { headers, body } = c.req.raw;
  const length = headers.has("transfer-encoding") ? null : headers.get("content-length");
  if (length === null && body) {
    const read = await readBody(body);
    if (!read) return refused(c, refuse("body_too_large"));
    // Reading it has used up the request.
    c.req.raw = new Request(c.req.raw, { body: read });
    c.env.incoming.request = c.req.raw;
  } else if (Number(length) > MAX_BODY_BYTES) {
    return refused(c, refuse("body_too_large"));
  }
  return handler(c);
}

/** A body of an unknown length; `undefined` for one that is too large. */
async function readBody(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<Blob | undefined> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  const reader = body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    length += read.value.length;
    if (length > MAX_BODY_BYTES || pieces.length >= MAX_BODY_PIECES) {
      // Nobody waits for the rest.
      reader.cancel().catch(() => {});
      return undefined;
    }
    pieces.push(read.value);
  }
  return new Blob(pieces);
}
