import { type Context, Hono, type MiddlewareHandler } from "hono";
import type { GateParts } from "../gate/gate.ts";
import type { Identity } from "../gate/identity.ts";
import { faultCode } from "../lib/log.ts";
import { emptyResponse, headersFor, type Incoming, jsonResponse } from "../request/incoming.ts";
import { refuse } from "../request/refusal.ts";
import {
  allowMethods,
  allowOrigins,
  createRoutes,
  declined,
  limitBody,
  refused,
  type RouteEnv,
} from "../request/routes.ts";
import { MAX_PAGE } from "../wire/frames.ts";
import { isUserId, isVisitorId } from "../wire/ids.ts";
import { CHATS_PATH } from "../wire/paths.ts";
import type { Chat, ChatHistory } from "./history.ts";

/** Length of a page by default, in messages or chats. */
const DEFAULT_PAGE = 50;
const PAGE_PARAMETERS = ["after", "before", "limit"] as const;
const SHARING = { methods: "GET,POST,PUT,DELETE", credentials: true };

interface ChatEnv extends RouteEnv {
  Variables: { identity: Identity };
}

type ChatContext = Context<ChatEnv>;

/**
 * What was written, for those who weren't there: a user's or a visitor's own chats. There is no way to name a
 * chat of somebody else's.
 */
export function createChatRoutes(
  history: ChatHistory,
  { authenticator, log }: Pick<GateParts, "authenticator" | "log">,
): (incoming: Incoming) => Response | Promise<Response> {
  const app = createRoutes(log);
  const routes = new Hono<ChatEnv>();

  const authenticate: MiddlewareHandler<ChatEnv> = async (c, next) => {
    const identified = await authenticator.anyone(c.env.incoming);
    if (!identified.ok) return declined(c, identified, log, SHARING);
    c.set("identity", identified.identity);
    return next();
  };
  routes.use(allowOrigins(SHARING), limitBody, authenticate);
  routes.onError((error, c) => {
    log("error", "chat_failed", { code: faultCode(error) });
    return no(c, "store_unavailable");
  });

  routes
    .get("/", async (c) => {
      const { kind, id } = c.var.identity;
      const page = readPage(c.env.incoming.url);
      if (!page) return no(c, "malformed_request");
      const chats = await history.chats({ side: kind, id }, page);
      return yes(c, { chats, more: chats.length === page.limit });
    })
    .all(allowMethods("GET, HEAD", SHARING));

  routes
    .get("/:partner/messages", async (c) => {
      const chat = chatOf(c);
      const page = readPage(c.env.incoming.url);
      if (!page) return no(c, "malformed_request");
      const found = chat && (await history.messages(chat, page));
      if (!found) return no(c, "not_found");
      return yes(c, { ...found, more: found.messages.length === page.limit });
    })
    .all(allowMethods("GET, HEAD", SHARING));

  routes
    .post("/:partner/read", async (c) => {
      const chat = chatOf(c);
      const upTo = chat && (await history.markRead(chat, c.var.identity.kind));
      return upTo === undefined ? no(c, "not_found") : yes(c, { upTo });
    })
    .all(allowMethods("POST", SHARING));

  routes
    .on(["PUT", "DELETE"], "/:partner/block", async (c) => {
      const chat = chatOf(c);
      if (c.var.identity.kind !== "user" || !chat) return no(c, "not_found");
      await history.setBlocked(chat, c.req.method === "PUT");
      return done(c);
    })
    .all("/:partner/block", allowMethods("PUT, DELETE", SHARING));

  routes
    .delete("/:partner", async (c) => {
      const chat = chatOf(c);
      return chat && (await history.remove(chat)) ? done(c) : no(c, "not_found");
    })
    .all(allowMethods("DELETE", SHARING));

  app.route(CHATS_PATH, routes);
  return (incoming) => app.fetch(incoming.request, { incoming });
}

function yes({ env }: ChatContext, body: unknown): Response {
  return jsonResponse(body, headersFor(env.incoming, SHARING));
}

function done({ env }: ChatContext): Response {
  return emptyResponse(headersFor(env.incoming, SHARING));
}

function no(c: ChatContext, code: Parameters<typeof refuse>[0]): Response {
  return refused(c, refuse(code), SHARING);
}

/** The chat with the one in the path; `undefined` for what can't be anybody's id. */
function chatOf(c: ChatContext): Chat | undefined {
  const { kind, id } = c.var.identity;
  const partner = c.req.param("partner");
  if (kind === "user") return isVisitorId(partner) ? { user: id, visitor: partner } : undefined;
  return isUserId(partner) ? { user: partner, visitor: id } : undefined;
}

/** `after`, `before` and `limit` of the query; `undefined` where they make no page. */
function readPage({
  searchParams: query,
}: URL): { afterId?: string; beforeId?: string; limit: number } | undefined {
  if (PAGE_PARAMETERS.some((name) => query.getAll(name).length > 1)) return undefined;
  const [after, before, limit = String(DEFAULT_PAGE)] = PAGE_PARAMETERS.map(
    (name) => query.get(name) ?? undefined,
  );
  const isId = (value: string | undefined) => value === undefined || /^\d{1,15}$/.test(value);
  if (!isId(after) || !isId(before) || (after && before)) return undefined;
  if (!/^\d{1,6}$/.test(limit) || Number(limit) < 1) return undefined;
  return {
    ...(after && { afterId: after }),
    ...(before && { beforeId: before }),
    limit: Math.min(Number(limit), MAX_PAGE),
  };
}
