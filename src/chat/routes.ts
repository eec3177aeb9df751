import { type Context, Hono } from "hono";
import type { Deps } from "../gate/gate.ts";
import {
  allowMethods,
  allowOrigins,
  answer,
  type AppEnv,
  bearerUser,
  decline,
} from "../gate/http.ts";
import { faultCode } from "../lib/log.ts";
import { isAllowedOrigin, isSecure } from "../request/origin.ts";
import { type Refusal, refuse } from "../request/refusal.ts";
import { isRevoked } from "../gate/revocation.ts";
import type { Credential } from "../gate/store.ts";
import { isUserId } from "../gate/token.ts";
import { urlOf } from "../request/url.ts";
import { isVisitorId } from "../gate/visitor.ts";
import { type ChatLog, MAX_PAGE } from "./history.ts";
import type { Chat } from "../wire/frames.ts";

/** Length of a page when nobody says, in messages or chats. */
const DEFAULT_PAGE = 50;
const PAGE_PARAMETERS = ["after", "before", "limit"] as const;

interface ChatEnv extends AppEnv {
  Variables: { identity: Credential };
}

/**
 * What was written, for those who weren't there: a user's or a visitor's own chats, under `/api/chats`.
 * There is no way to name a chat of somebody else's.
 */
export function createChatRoutes(chat: ChatLog, deps: Deps): Hono<ChatEnv> {
  const routes = new Hono<ChatEnv>();
  routes.use(allowOrigins(deps, { credentials: true, methods: ["GET", "POST", "PUT", "DELETE"] }));
  routes.use(async (c, next) => {
    const identity = await identify(c, deps);
    if (!identity.ok) return decline(c, identity, deps);
    c.set("identity", identity.identity);
    return next();
  });
  routes.onError((error) => {
    deps.log("error", "chat_failed", { code: faultCode(error) });
    return answer("store_unavailable");
  });

  routes
    .get("/", async (c) => {
      const { kind, id } = c.var.identity;
      const page = readPage(c);
      if (!page) return answer("malformed_request");
      if (kind === "user") await chat.meet(id);
      const chats = await chat.chats({ side: kind, id }, page);
      return c.json({ chats, more: chats.length === page.limit });
    })
    .all(allowMethods("GET, HEAD"));

  routes
    .get("/:peer/messages", async (c) => {
      const where = chatOf(c);
      const page = readPage(c);
      if (!page) return answer("malformed_request");
      const found = where && (await chat.messages(where, page));
      if (!found) return answer("not_found");
      return c.json({ ...found, more: found.messages.length === page.limit });
    })
    .all(allowMethods("GET, HEAD"));

  routes
    .post("/:peer/read", async (c) => {
      const where = chatOf(c);
      const upTo = where && (await chat.markRead(where, c.var.identity.kind));
      return upTo === undefined ? answer("not_found") : c.json({ upTo });
    })
    .all(allowMethods("POST"));

  routes
    .on(["PUT", "DELETE"], "/:peer/block", async (c) => {
      const where = chatOf(c);
      if (c.var.identity.kind !== "user" || !where) return answer("not_found");
      await chat.setBlocked(where, c.req.method === "PUT");
      return c.body(null, 204);
    })
    .all("/:peer/block", allowMethods("PUT, DELETE"));

  routes
    .delete("/:peer", async (c) => {
      const where = chatOf(c);
      return where && (await chat.remove(where)) ? c.body(null, 204) : answer("not_found");
    })
    .all(allowMethods("DELETE"));

  return routes;
}

/**
 * A user by the bearer token, and by nothing else where one is sent; a visitor by the cookie. What changes
 * something by a cookie must come from an allowed page.
 */
async function identify(
  c: Context<ChatEnv>,
  deps: Deps,
): Promise<{ readonly ok: true; readonly identity: Credential } | Refusal> {
  const { raw } = c.req;
  const url = urlOf(raw);
  if (raw.headers.has("authorization")) {
    const verified = await bearerUser(c, deps);
    return verified.ok ? unlessRevoked({ kind: "user", ...verified.user }, deps) : verified;
  }
  const visitor = await deps.visitors.read(raw.headers.get("cookie"), {
    secure: isSecure(url, deps.origins),
  });
  if (!visitor) return refuse("session_refused");
  const safe = raw.method === "GET" || raw.method === "HEAD";
  const fromOwnPage = raw.headers.get("sec-fetch-site") === "same-origin";
  const allowed = raw.headers.has("origin")
    ? isAllowedOrigin(raw, url, deps.origins)
    : safe || fromOwnPage;
  return allowed ? unlessRevoked({ kind: "visitor", ...visitor }, deps) : refuse("origin_refused");
}

async function unlessRevoked(
  identity: Credential,
  deps: Deps,
): Promise<{ readonly ok: true; readonly identity: Credential } | Refusal> {
  const revoked = await isRevoked(identity, deps);
  if (revoked === "unknown") return refuse("store_unavailable");
  if (!revoked) return { ok: true, identity };
  return refuse(identity.kind === "user" ? "token_invalid" : "session_refused");
}

/** The chat with the one in the path; `undefined` for what can't be anybody's id. */
function chatOf(c: Context<ChatEnv>): Chat | undefined {
  const { kind, id } = c.var.identity;
  const peer = c.req.param("peer");
  if (kind === "user") return isVisitorId(peer) ? { user: id, visitor: peer } : undefined;
  return isUserId(peer) ? { user: peer, visitor: id } : undefined;
}

/** `after`, `before` and `limit` of the query; `undefined` where they make no page. */
function readPage(
  c: Context<ChatEnv>,
): { afterId?: string; beforeId?: string; limit: number } | undefined {
  const query = new URL(c.req.url).searchParams;
  if (PAGE_PARAMETERS.some((name) => query.getAll(name).length > 1)) return undefined;
  const [after, before, limit = String(DEFAULT_PAGE)] = PAGE_PARAMETERS.map(
    (name) => query.get(name) ?? undefined,
  );
  const isId = (value: string | undefined) => value === undefined || /^\d{1,15}$/.test(value);
  if (!isId(after) || !isId(before) || (after && before) || !/^\d{1,6}$/.test(limit))
    return undefined;
  if (Number(limit) < 1) return undefined;
  return {
    ...(after && { afterId: after }),
    ...(before && { beforeId: before }),
    limit: Math.min(Number(limit), MAX_PAGE),
  };
}
