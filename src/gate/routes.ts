import { Hono, type MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import { PatternRouter } from "hono/router/pattern-router";
import { createChatRoutes } from "../chat/routes.ts";
import type { Deps } from "./gate.ts";
import { withinDeadline, DEPENDENCY_DEADLINE_MS } from "../lib/deadline.ts";
import { isSameSecret, sha256Hex, toBase64url } from "../lib/encoding.ts";
import { ANSWER_HEADERS } from "../request/headers.ts";
import { faultCode } from "../lib/log.ts";
import {
  allowMethods,
  allowOrigins,
  answer,
  type AppEnv,
  bearerUser,
  decline,
  isForeign,
  peerOf,
} from "./http.ts";
import { isSecure } from "../request/origin.ts";
import { type Refusal, refuse, refuseFor } from "../request/refusal.ts";
import { isRevoked, kick, signOut } from "./revocation.ts";
import { issueTicket } from "./ticket.ts";
import { isUserId, readBearer } from "./token.ts";
import { parseUrl, readTicket, urlOf } from "../request/url.ts";
import { isVisitorId } from "./visitor.ts";

/** Largest body of a request, in bytes: none needs more than a few words. */
const MAX_BODY_BYTES = 16 * 1024;
/** One probe of the store answers all readiness requests for so long. */
const READY_FOR_MS = 1_000;

/**
 * The HTTP side as a Hono app: the ticket endpoint, the visitor's session, health. Web standards only, so
 * that it runs unchanged on Bun, Node, Deno and workerd.
 */
export function createApp(deps: Deps): Hono<AppEnv> {
  const { limits, log, visitors } = deps;
  // Hono's usual router compiles all routes at the first request, which takes as long as a third of the start.
  const app = new Hono<AppEnv>({ getPath, router: new PatternRouter() });

  app.use(answerHeaders(deps), checkUrl(deps));
  app.use("/api/*", limitBody);
  app.onError((error) => {
    log("error", "request_failed", { code: faultCode(error) });
    return answer("internal_error");
  });
  app.notFound(() => answer("not_found"));

  app
    .use("/api/auth/ws-ticket", allowOrigins(deps, { credentials: false, methods: ["POST"] }))
    .post(async (c) => {
      const user = await bearerUser(c, deps);
      if (!user.ok) return decline(c, user, deps);
      const waitMs = limits.tickets.waitMs(user.user.id);
      if (waitMs > 0) return decline(c, refuseFor(waitMs), deps);
      limits.tickets.count(user.user.id);
      const issued = await issueTicket(user.user, deps);
      if (!issued.ok) return decline(c, issued, deps);
      return c.json({ ticket: issued.ticket, expiresIn: issued.expiresInSeconds });
    })
    .all(allowMethods("POST"));

  app
    .use(
      "/api/auth/anonymous-session",
      allowOrigins(deps, { credentials: true, methods: ["POST"] }),
    )
    .post(async (c) => {
      if (isForeign(c, deps)) return decline(c, refuse("origin_refused"), deps);
      const peer = peerOf(c, deps);
      const waitMs = peer ? limits.sessions.waitMs(peer) : 0;
      if (waitMs > 0) return decline(c, refuseFor(waitMs), deps);
      if (peer) limits.sessions.count(peer);
      const secure = isSecure(urlOf(c.req.raw), deps.origins);
      const known = await visitors.read(c.req.raw.headers.get("cookie"), { secure });
      const revoked = known && (await isRevoked({ kind: "visitor", ...known }, deps));
      if (revoked === "unknown") return decline(c, refuse("store_unavailable"), deps);
      c.header("Set-Cookie", await visitors.issue({ id: revoked ? undefined : known?.id, secure }));
      return c.body(null, 204);
    })
    .all(allowMethods("POST"));

  app
    .use("/api/auth/sign-out", allowOrigins(deps, { credentials: false, methods: ["POST"] }))
    .post(async (c) => {
      const user = await bearerUser(c, deps);
      if (!user.ok) return decline(c, user, deps);
      const options = await readSignOut(c.req.raw);
      if (!options) return decline(c, refuse("malformed_request"), deps);
      const done = await signOut(user.user, deps, options);
      return done.ok ? c.body(null, 204) : decline(c, done, deps);
    })
    .all(allowMethods("POST"));

  const { adminToken } = deps;
  if (adminToken !== undefined) {
    app
      .delete("/api/admin/identities/:id/sockets", async (c) => {
        const bearer = readBearer(c.req.raw.headers.get("authorization"));
        if (!bearer.ok) return decline(c, bearer, deps);
        if (!(await isSameSecret(bearer.token, adminToken)))
          return decline(c, refuse("token_invalid"), deps);
        const id = c.req.param("id");
        const kinds = isVisitorId(id) ? (["user", "visitor"] as const) : (["user"] as const);
        const kicked = await Promise.all(kinds.map((kind) => kick({ kind, id }, deps)));
        const failed = kicked.find((one) => !one.ok);
        return failed ? decline(c, failed as Refusal, deps) : c.body(null, 204);
      })
      .all(allowMethods("DELETE"));
  }

  const { signDemoToken } = deps;
  if (signDemoToken) {
    app
      .post("/api/demo/token", async (c) => {
        if (isForeign(c, deps)) return decline(c, refuse("origin_refused"), deps);
        const body: unknown = await c.req.json().catch(() => undefined);
        const { name } = (body ?? {}) as { name?: unknown };
        if (!isUserId(name)) return decline(c, refuse("malformed_request"), deps);
        return c.json({ token: await signDemoToken(name) });
      })
      .all(allowMethods("POST"));
  }

  if (deps.chat) app.route("/api/chats", createChatRoutes(deps.chat, deps));

  app.get("/healthz", (c) => c.json({ status: "ok" })).all(allowMethods("GET, HEAD"));

  const storeAnswers = createProbe(deps);
  app
    .get("/readyz", async (c) => {
      if (deps.isDraining()) return answer("shutting_down");
      return (await storeAnswers()) ? c.json({ status: "ok" }) : answer("store_unavailable");
    })
    .all(allowMethods("GET, HEAD"));

  return app;
}

/** The body of a sign-out: none, or `{"everywhere": true}`; `undefined` for anything else. */
async function readSignOut(request: Request): Promise<{ everywhere: boolean } | undefined> {
  const text = await request.text();
  if (text === "") return { everywhere: false };
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
    const { everywhere = false } = body as { everywhere?: unknown };
    return typeof everywhere === "boolean" ? { everywhere } : undefined;
  } catch {
    return undefined;
  }
}

/** Refuses what is no URL, and every URL with a credential in it, before anything else looks at the request. */
function checkUrl(deps: Deps): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const target = parseUrl(c.req.raw);
    if (!target.ok) return decline(c, target, deps);
    // One spelling for each path: to the router a slash behind it would be the same.
    if (/.\/$/.test(target.url.pathname)) return answer("not_found");
    const ticket = readTicket(target.url);
    return ticket.ok ? next() : decline(c, ticket, deps);
  };
}

const limitRead = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: () => answer("body_too_large"),
});

/** Refuses a body that is too large. Where there says to be none, nobody looks: that costs more than a ticket. */
const limitBody: MiddlewareHandler<AppEnv> = (c, next) =>
  c.req.raw.headers.get("content-length") === "0" ? next() : limitRead(c, next);

/** What every answer carries, unless its route says otherwise; on https also that it stays https. */
function answerHeaders({ origins }: Deps): MiddlewareHandler<AppEnv> {
  const fixed = Object.entries(ANSWER_HEADERS);
  return async (c, next) => {
    const target = parseUrl(c.req.raw);
    const secure = target.ok && isSecure(target.url, origins);
    await next();
    const { headers } = c.res;
    for (const [name, value] of fixed) if (!headers.has(name)) headers.set(name, value);
    if (secure) {
      headers.set("Strict-Transport-Security", "max-age=31536000; includeSubDomains");
    }
  };
}

function getPath(request: Request): string {
  const target = parseUrl(request);
  return target.ok ? target.url.pathname : "/";
}

/** Whether the store takes tickets: asked for one that was never issued, at most once in `READY_FOR_MS`. */
function createProbe({ store, clock, randomBytes, log }: Deps): () => Promise<boolean> {
  let askedAtMs = Number.NEGATIVE_INFINITY;
  let answer: Promise<boolean> = Promise.resolve(false);
  return () => {
    if (clock.monotonicMs() - askedAtMs < READY_FOR_MS) return answer;
    askedAtMs = clock.monotonicMs();
    answer = (async () => {
      try {
        const hash = await sha256Hex(toBase64url(randomBytes(32)));
        await withinDeadline(store.take(hash), DEPENDENCY_DEADLINE_MS);
        return true;
      } catch (error) {
        log("error", "store_failed", { code: faultCode(error) });
        return false;
      }
    })();
    return answer;
  };
}
