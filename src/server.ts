import type { Hono } from "hono";
import { admit } from "./admit.ts";
import { createApp } from "./app.ts";
import type { Deps } from "./deps.ts";
import type { AppEnv } from "./http.ts";
import { faultCode } from "./log.ts";
import { parseUrl } from "./url.ts";
import { refuse, refusalResponse } from "./refusal.ts";
import {
  CLOSE,
  createSockets,
  type SocketData,
  type SocketHandlers,
  type SocketLimits,
  who,
} from "./sockets.ts";

/** Where sockets are opened. */
export const SOCKET_PATH = "/ws/chat";
/** Largest body that Bun reads before the app has its say, in bytes. */
const MAX_BODY_BYTES = 1024 * 1024;

export const DEFAULT_LIMITS: SocketLimits = {
  maxPerIdentity: 20,
  messagesPerSecond: 20,
  maxMessageBytes: 16_384,
};

export interface ServeOptions extends Deps {
  /** What sockets are for: the chat, or handlers of your own. */
  handlers: SocketHandlers;
  /** Default 127.0.0.1. */
  hostname?: string;
  /** Default 0: any free port. */
  port?: number;
  socketLimits?: Partial<SocketLimits>;
  /** Pages to serve beside the API. */
  pages?: Hono<AppEnv>;
}

/** A server that runs. `await using` stops it at the end of the block. */
export interface RunningServer extends AsyncDisposable {
  readonly url: URL;
  /** Open sockets. */
  readonly socketCount: number;
  /**
   * Refuses what is new, tells every socket 1012, finishes what is under way, within `withinMs` (default
   * 10,000). Closes the ticket store. Further calls return the first one's promise.
   */
  stop(options?: { withinMs?: number }): Promise<void>;
}

/** Starts a server. Throws when the address is taken. */
export function serve(options: ServeOptions): RunningServer {
  const { handlers, hostname = "127.0.0.1", port = 0, socketLimits, log } = options;
  let stopping: Promise<void> | undefined;
  const deps: Deps = { ...options, isDraining: () => stopping !== undefined };
  const app = createApp(deps);
  if (options.pages) app.route("/", options.pages);
  const sockets = createSockets(deps, handlers, { ...DEFAULT_LIMITS, ...socketLimits });

  async function openSocket(request: Request): Promise<Response | undefined> {
    const startedAtMs = deps.clock.monotonicMs();
    const socketAddress = server.requestIP(request)?.address;
    const admission = await admit(request, deps, socketAddress);
    const common = {
      ...(socketAddress && { peer: socketAddress }),
      durationMs: Math.round(deps.clock.monotonicMs() - startedAtMs),
    };
    if (!admission.ok) {
      log("info", "socket_refused", { ...common, code: admission.code });
      return refusalResponse(admission);
    }
    const { identity, ticketTag } = admission;
    const fields = { ...common, ...who(identity), ...(ticketTag && { ticketTag }) };
    try {
      await handlers.ready?.();
    } catch (error) {
      log("error", "handlers_not_ready", { ...fields, code: faultCode(error) });
      return refusalResponse(refuse("store_unavailable"));
    }
    if (deps.isDraining()) return refusalResponse(refuse("shutting_down"));
    const upgraded =
      !request.signal.aborted &&
      server.upgrade(request, {
        data: { identity, waiting: 0, last: Promise.resolve() },
        // Without it Bun would echo the first subprotocol offered, whatever it is.
        headers: { "Sec-WebSocket-Protocol": "" },
      });
    log("info", upgraded ? "socket_opened" : "client_gone", fields);
    return upgraded ? undefined : refusalResponse(refuse("handshake_invalid"));
  }

  const server: Bun.Server<SocketData> = Bun.serve<SocketData>({
    hostname,
    port,
    development: false,
    maxRequestBodySize: MAX_BODY_BYTES,
    websocket: sockets.websocket,
    async fetch(request) {
      const target = parseUrl(request);
      if (!target.ok) return refusalResponse(target);
      if (target.url.pathname === SOCKET_PATH) return openSocket(request);
      return app.fetch(request, { socketAddress: server.requestIP(request)?.address });
    },
    error(error) {
      log("error", "request_failed", { code: faultCode(error) });
      return refusalResponse(refuse("internal_error"));
    },
  });
  handlers.start?.((topic, text) => server.publish(topic, text), sockets.closeAll);

  async function drain(withinMs: number): Promise<void> {
    const deadline = AbortSignal.timeout(withinMs);
    sockets.closeAll(CLOSE.serviceRestart, "Server restarts");
    await Promise.race([
      server.stop(),
      new Promise((resolve) => deadline.addEventListener("abort", resolve)),
    ]);
    await server.stop(true);
    await handlers.stop?.();
    await deps.store.close();
  }

  const stop: RunningServer["stop"] = ({ withinMs = 10_000 } = {}) =>
    (stopping ??= drain(withinMs));
  return {
    url: server.url,
    get socketCount() {
      return sockets.size;
    },
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}
