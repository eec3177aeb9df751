import type { GateParts } from "../gate/gate.ts";
import { type Identity, identityKey } from "../gate/identity.ts";
import { faultCode } from "../lib/log.ts";
import { emptyResponse, headersFor, type Incoming, jsonResponse } from "../request/incoming.ts";
import { type RefusalCode, refuse, refuseFor } from "../request/refusal.ts";
import {
  createRoutes,
  declined,
  refused,
  type RouteContext,
  type RouteHandler,
} from "../request/routes.ts";
import { MAX_PAGE } from "../wire/frames.ts";
import { isUserId, isVisitorId } from "../wire/ids.ts";
import { CHATS_PATH } from "../wire/paths.ts";
import type { Chat, ChatHistory } from "./history.ts";
import { type ChatLimits, MAX_PAGE_WAIT_MS } from "./limits.ts";

/** Length of a page by default, in messages or chats. */
const DEFAULT_PAGE = 50;
/** What the longest page costs of the requests that somebody may make; others cost what their length comes to. */
const PAGE_COST = 9;
const CHARACTERS_PER_REQUEST = 8_000;
const CHATS_PER_REQUEST = 25;
const PAGE_PARAMETERS = ["after", "before", "limit"] as const;
const SHARING = { methods: "GET,POST,PUT,DELETE", credentials: true };

/** A handler that knows whose chats are meant, and says what a page came to, in requests. */
type ChatHandler = (
  c: RouteContext,
  identity: Identity,
  charge: (cost: number) => void,
) => Promise<Response>;

/**
 * The chats of a user or visitor, for reading what was missed. There is no way to name a chat between others.
 */
export function createChatRoutes(
  history: ChatHistory,
  { authenticator, clock, log }: Pick<GateParts, "authenticator" | "clock" | "log">,
  limits: Pick<ChatLimits, "requests" | "pages">,
): (incoming: Incoming) => Response | Promise<Response> {
  const routes = createRoutes(log);
  let lastTurn = Promise.resolve();

  function add(path: string, handlers: Readonly<Record<string, ChatHandler>>): void {
    const entries = Object.entries(handlers).map(([method, handler]) => [
      method,
      guard(handler, method === "GET" ? PAGE_COST : 1),
    ]);
    routes.add(`${CHATS_PATH}${path}`, Object.fromEntries(entries), SHARING);
  }

  /** Spends `most` at first, so that pages at the same time can't cost more than is left, and gives back the rest. */
  function guard(handler: ChatHandler, most: number): RouteHandler {
    return async (c) => {
      const { incoming } = c.env;
      const { limitKey } = incoming;
      const identified = await authenticator.anyone(incoming);
      if (!identified.ok) return declined(c, identified, log, SHARING);
      const addressWaitMs = limitKey === undefined ? 0 : limits.requests.take(limitKey);
      if (addressWaitMs > 0) return declined(c, refuseFor(addressWaitMs), log, SHARING);
      try {
        const key = identityKey(identified.identity);
        const waitMs = await history.spendRequests(key, most);
        if (waitMs > 0) return declined(c, refuseFor(waitMs), log, SHARING);
        const lateMs = most > 1 ? await pageTurn(limitKey) : 0;
        let cost = lateMs > 0 ? 0 : 1;
        const charge = (charged: number) => void (cost = Math.min(charged, most));
        const response =
          lateMs > 0
            ? declined(c, refuseFor(lateMs), log, SHARING)
            : await handler(c, identified.identity, charge);
        if (limitKey !== undefined) limits.requests.count(limitKey, Math.max(0, cost - 1));
        // Nobody waits for it, and without it there is only less left.
        if (cost < most) history.spendRequests(key, cost - most).catch(() => {});
        return response;
      } catch (error) {
        log("error", "chat_failed", { code: faultCode(error) });
        return no(c, "store_unavailable");
      }
    };
  }

  /** Waits until a page may be put together; resolves to how long that would take when it is too long. */
  async function pageTurn(address: string | undefined): Promise<number> {
    if (address !== undefined) {
      const waitMs = limits.pages.waitMs(address);
      if (waitMs >= MAX_PAGE_WAIT_MS) return waitMs;
      limits.pages.count(address);
      if (waitMs > 0) await new Promise<void>((resolve) => clock.after(waitMs, resolve));
    }
    // Each in a turn of the event loop of its own, with others' work in between.
    lastTurn = lastTurn.then(() => new Promise((resolve) => setImmediate(resolve)));
    await lastTurn;
    return 0;
  }

  add("", {
    async GET(c, { kind, id }, charge) {
      const page = readPage(c.env.incoming.url);
      if (!page) return no(c, "malformed_request");
      const chats = await history.chats({ side: kind, id }, page);
      charge(1 + Math.floor(chats.length / CHATS_PER_REQUEST));
      return yes(c, { chats, more: chats.length === page.limit });
    },
  });

  add("/:partner/messages", {
    async GET(c, identity, charge) {
      const chat = chatOf(c, identity);
      const page = readPage(c.env.incoming.url);
      if (!page) return no(c, "malformed_request");
      const found = chat && (await history.messages(chat, page));
      if (!found) return no(c, "not_found");
      const length = found.messages.reduce((sum, { content }) => sum + content.length, 0);
      charge(1 + Math.floor(length / CHARACTERS_PER_REQUEST));
      return yes(c, found);
    },
  });

  add("/:partner/read", {
    async POST(c, identity) {
      const chat = chatOf(c, identity);
      const upTo = chat && (await history.markRead(chat, identity.kind));
      return upTo === undefined ? no(c, "not_found") : yes(c, { upTo });
    },
  });

  const setBlocked =
    (blocked: boolean): ChatHandler =>
    async (c, identity) => {
      const chat = chatOf(c, identity);
      if (identity.kind !== "user" || !chat) return no(c, "not_found");
      const outcome = await history.setBlocked(chat, blocked);
      if (outcome === "not_found") return no(c, "not_found");
      // There is nothing to wait for, but to unblock somebody.
      if (outcome === "too_many") return declined(c, refuseFor(60_000), log, SHARING);
      return done(c);
    };
  add("/:partner/block", { PUT: setBlocked(true), DELETE: setBlocked(false) });

  add("/:partner", {
    async DELETE(c, identity) {
      const chat = chatOf(c, identity);
      return chat && (await history.remove(chat)) ? done(c) : no(c, "not_found");
    },
  });

  return routes.handle;
}

function yes({ env }: RouteContext, body: unknown): Response {
  return jsonResponse(body, headersFor(env.incoming, SHARING));
}

function done({ env }: RouteContext): Response {
  return emptyResponse(headersFor(env.incoming, SHARING));
}

function no(c: RouteContext, code: RefusalCode): Response {
  return refused(c, refuse(code), SHARING);
}

/** The chat with the one in the path; `undefined` for what can't be anybody's id. */
function chatOf(c: RouteContext, { kind, id }: Identity): Chat | undefined {
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
