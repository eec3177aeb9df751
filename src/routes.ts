import type { ChatService } from "./chat/chat.ts";
import { type Gate, partsOf } from "./gate/gate.ts";
import type { TicketStore } from "./gate/store.ts";
import { readBearer } from "./gate/token.ts";
import { DEPENDENCY_DEADLINE_MS, withinDeadline } from "./lib/deadline.ts";
import { isSameSecret, sha256Hex, toBase64url } from "./lib/encoding.ts";
import { faultCode } from "./lib/log.ts";
import {
  type ConnectionInfo,
  emptyResponse,
  headersFor,
  jsonResponse,
  readRequest,
} from "./request/incoming.ts";
import type { Pages } from "./page/pages.ts";
import { addInboxSession } from "./page/session.ts";
import { isLoopback } from "./request/origin.ts";
import { refusalResponse, refuse } from "./request/refusal.ts";
import { createRoutes, declined, refused } from "./request/routes.ts";
import { isUserId, isVisitorId } from "./wire/ids.ts";
import { CHATS_PATH } from "./wire/paths.ts";

/** One probe of the store serves all readiness requests for this long, in milliseconds. */
const READY_FOR_MS = 1_000;

/**
 * Everything that the server answers beside the gate's routes and the sockets: chats, pages, health, and
 * routes for operators.
 */
export function createServerRoutes(options: {
  gate: Gate;
  chat: ChatService;
  pages?: Pages | undefined;
  /** Without it there is no route for operators. */
  adminToken?: string | undefined;
  /** Only in the demo mode: signs a token for any name. */
  signDemoToken?: ((user: string) => Promise<string>) | undefined;
  isStopping: () => boolean;
  /** Where readiness is probed. Default: the gate's store. */
  store?: Pick<TicketStore, "take"> | undefined;
}): (request: Request, connection?: ConnectionInfo) => Promise<Response> {
  const { gate, chat, pages, adminToken, signDemoToken, isStopping } = options;
  const { authenticator, revocations, policy, log } = partsOf(gate);
  const routes = createRoutes(log);

  if (adminToken !== undefined) {
    routes.add("/api/admin/identities/:id/sockets", {
      async DELETE(c) {
        const { incoming } = c.env;
        const bearer = readBearer(incoming.request.headers.get("authorization"));
        if (!bearer.ok) return declined(c, bearer, log);
        if (!(await isSameSecret(bearer.token, adminToken))) {
          const refusal = authenticator.attempts.refuse(incoming, refuse("token_invalid"));
          return declined(c, refusal, log);
        }
        const id = c.req.param("id") ?? "";
        const kinds = isVisitorId(id) ? (["user", "visitor"] as const) : (["user"] as const);
        const ended = await Promise.all(kinds.map((kind) => revocations.endAll({ kind, id })));
        const failed = ended.find((one) => !one.ok);
        if (failed && !failed.ok) return declined(c, failed, log);
        return emptyResponse(headersFor(incoming));
      },
    });
  }

  if (signDemoToken) {
    routes.add("/api/demo/token", {
      async POST(c) {
        const { incoming } = c.env;
        if (incoming.origin === "foreign") return declined(c, refuse("origin_refused"), log);
        const body: unknown = await c.req.json().catch(() => undefined);
        const { name } = (body ?? {}) as { name?: unknown };
        if (!isUserId(name)) return declined(c, refuse("malformed_request"), log);
        return jsonResponse({ token: await signDemoToken(name) }, headersFor(incoming));
      },
    });
  }

  addInboxSession(routes, partsOf(gate), chat.profiles);

  routes.add("/healthz", {
    GET: (c) => jsonResponse({ status: "ok" }, headersFor(c.env.incoming)),
  });

  const isStoreReady = createProbe(gate, () => probeStore(gate, options.store));
  const isChatReady = createProbe(gate, () => probeChat(gate, chat));
  routes.add("/readyz", {
    async GET(c) {
      if (isStopping()) return refused(c, refuse("shutting_down"));
      const areReady = await Promise.all([isStoreReady(), isChatReady()]);
      if (!areReady.every(Boolean)) return refused(c, refuse("store_unavailable"));
      return jsonResponse({ status: "ok" }, headersFor(c.env.incoming));
    },
  });

  if (pages) routes.app.route("/", pages.routes);

  return async (request, connection) => {
    const read = readRequest(request, policy, connection);
    if (!read.ok) return refusalResponse(read);
    const { pathname } = read.incoming.url;
    if (pathname === CHATS_PATH || pathname.startsWith(`${CHATS_PATH}/`)) {
      return chat.fetch(request, connection);
    }
    // Through a proxy the demo would sign tokens for anybody.
    if (signDemoToken && !isLoopback(read.incoming.url.hostname)) {
      return refusalResponse(refuse("origin_refused"), headersFor(read.incoming));
    }
    const response = await routes.handle(read.incoming);
    const page = response.status === 404 ? pages?.notFound(read.incoming) : undefined;
    return page ?? response;
  };
}

/** Whether the store works and its events arrive: probed with a ticket that was never issued. */
async function probeStore(
  gate: Gate,
  store: Pick<TicketStore, "take"> = partsOf(gate).store,
): Promise<boolean> {
  const { revocations, clock, log, randomBytes } = partsOf(gate);
  try {
    const hash = await sha256Hex(toBase64url(randomBytes(32)));
    await withinDeadline(store.take(hash), DEPENDENCY_DEADLINE_MS, clock);
    return !revocations.areMissed;
  } catch (error) {
    log("error", "store_failed", { code: faultCode(error) });
    return false;
  }
}

/** Whether messages can be stored. */
async function probeChat(gate: Gate, chat: ChatService): Promise<boolean> {
  const { clock, log } = partsOf(gate);
  try {
    await withinDeadline(chat.probe(), DEPENDENCY_DEADLINE_MS, clock);
    return true;
  } catch (error) {
    log("error", "chat_failed", { code: faultCode(error) });
    return false;
  }
}

/** Shares one probe among all who ask within a second. */
function createProbe(gate: Gate, probe: () => Promise<boolean>): () => Promise<boolean> {
  const { clock } = partsOf(gate);
  let probedAtMs = Number.NEGATIVE_INFINITY;
  let result: Promise<boolean> = Promise.resolve(false);

  return () => {
    if (clock.monotonicMs() - probedAtMs >= READY_FOR_MS) {
      probedAtMs = clock.monotonicMs();
      result = probe();
    }
    return result;
  };
}
