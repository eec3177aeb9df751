import type { Hono } from "hono";
import { admit } from "../gate/admit.ts";
import { createApp } from "../gate/routes.ts";
import { withinDeadline } from "../lib/deadline.ts";
import type { Deps } from "../gate/gate.ts";
import { ANSWER_HEADERS } from "../request/headers.ts";
import type { AppEnv } from "../gate/http.ts";
import { faultCode } from "../lib/log.ts";
import { parseUrl } from "../request/url.ts";
import { refuse, refuseFor, refusalResponse } from "../request/refusal.ts";
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

/** Handshakes under way at once; further ones are told to come again. */
const MAX_HANDSHAKES = 1_000;
/** How long sockets that don't answer the Close frame hold up a stop, in milliseconds. */
const GOODBYE_MS = 1_000;
/** Time for the last answers to leave, in milliseconds. */
const FLUSH_MS = 100;

export const DEFAULT_LIMITS: SocketLimits = {
  // Until it is known how many open files the process may have: 80 % of what every system allows.
  maxSockets: 800,
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
   * Refuses what is new, tells every socket 1012, evenly spread over `spreadMs` (default: at once), and
   * finishes what is under way, all within `withinMs` (default 10,000). Closes chat, feed and store. Further
   * calls return the first one's promise. Rejects when the closing failed or took too long.
   */
  stop(options?: StopOptions): Promise<void>;
}

export interface StopOptions {
  withinMs?: number;
  spreadMs?: number;
}

/** Starts a server. Throws when the address is taken. */
export function serve(options: ServeOptions): RunningServer {
  const { handlers, hostname = "127.0.0.1", port = 0, socketLimits, log } = options;
  let stopping: Promise<void> | undefined;
  const deps: Deps = {
    ...options,
    isDraining: () => stopping !== undefined,
    onRevoked: (revocation) => sockets.revoke(revocation),
  };
  const app = createApp(deps);
  if (options.pages) app.route("/", options.pages);
  const sockets = createSockets(deps, handlers, { ...DEFAULT_LIMITS, ...socketLimits });
  let { maxSockets } = { ...DEFAULT_LIMITS, ...socketLimits };
  if (socketLimits?.maxSockets === undefined) {
    void readMaxSockets().then((most) => {
      maxSockets = most;
    });
  }
  let handshakes = 0;
  let requests = 0;

  async function openSocket(request: Request): Promise<Response | undefined> {
    if (handshakes >= MAX_HANDSHAKES || sockets.size + handshakes >= maxSockets) {
      log("warn", "socket_refused", { code: "too_many_requests", note: "The server is full" });
      return refusalResponse(refuseFor(1_000));
    }
    handshakes++;
    try {
      return await climbIn(request);
    } finally {
      handshakes--;
    }
  }

  async function climbIn(request: Request): Promise<Response | undefined> {
    const startedAtMs = deps.clock.monotonicMs();
    const peer = server.requestIP(request)?.address;
    const admitted = await admit(request, deps, peer);
    // It may have begun to stop meanwhile.
    const admission = admitted.ok && deps.isDraining() ? refuse("shutting_down") : admitted;
    const fields = {
      ...(peer && { peer }),
      durationMs: Math.round(deps.clock.monotonicMs() - startedAtMs),
    };
    if (!admission.ok) {
      log("info", "socket_refused", { ...fields, code: admission.code });
      return refusalResponse(admission);
    }
    const { identity, ticketTag } = admission;
    const upgraded =
      !request.signal.aborted &&
      server.upgrade(request, {
        data: sockets.dataFor(identity),
        // Without it Bun would echo the first subprotocol offered, whatever it is.
        headers: { "Sec-WebSocket-Protocol": "" },
      });
    const whose = { ...fields, ...who(identity), ...(ticketTag && { ticketTag }) };
    log("info", upgraded ? "socket_opened" : "client_gone", whose);
    return upgraded ? undefined : refusalResponse(refuse("handshake_invalid"));
  }

  const server: Bun.Server<SocketData> = Bun.serve<SocketData>({
    hostname,
    port,
    // Left open, Bun would share a port that is taken with whoever has it.
    reusePort: false,
    development: false,
    maxRequestBodySize: MAX_BODY_BYTES,
    websocket: sockets.websocket,
    async fetch(request) {
      const target = parseUrl(request);
      if (!target.ok) return refusalResponse(target);
      requests++;
      try {
        if (target.url.pathname === SOCKET_PATH) return await openSocket(request);
        return await app.fetch(request, {
          get socketAddress() {
            return server.requestIP(request)?.address;
          },
        });
      } finally {
        requests--;
      }
    },
    error(error) {
      log("error", "request_failed", { code: faultCode(error) });
      return refusalResponse(refuse("internal_error"));
    },
  });
  handlers.start?.((topic, text) => server.publish(topic, text));
  deps.feed?.start({
    hasListeners: () => sockets.size > 0,
    onGap: () => void sockets.closeAll(CLOSE.serviceRestart, "Messages were missed"),
  });
  deps.store.watch?.((revocation) => sockets.revoke(revocation));

  async function drain({ withinMs = 10_000, spreadMs = 0 }: StopOptions = {}): Promise<void> {
    const endMs = performance.now() + withinMs;
    const leftMs = () => Math.max(1, endMs - performance.now());
    await settled(sockets.closeAll(CLOSE.serviceRestart, "Server restarts", spreadMs), leftMs());
    const stopped = server.stop();
    let done = await settled(stopped, Math.min(GOODBYE_MS, leftMs()));
    if (!done) sockets.terminateAll();
    // A connection that has asked nothing is not waited for; Bun would.
    while (!done && performance.now() < endMs) {
      done = (await settled(stopped, Math.min(FLUSH_MS, leftMs()))) || requests === 0;
    }
    await server.stop(true);
    sockets.stop();
    const closed = Promise.all([handlers.stop?.(), deps.feed?.close(), deps.store.close()]);
    await withinDeadline(closed, Math.max(GOODBYE_MS, leftMs()));
  }

  const stop: RunningServer["stop"] = (options) => (stopping ??= drain(options));
  return {
    url: server.url,
    get socketCount() {
      return sockets.size;
    },
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}

/** Whether a promise was fulfilled within the time. */
function settled(promise: Promise<unknown>, withinMs: number): Promise<boolean> {
  return withinDeadline(promise, withinMs).then(
    () => true,
    () => false,
  );
}

/** Part of the open files that a process may have which sockets may take: at the limit itself accepting would spin. */
const SOCKET_SHARE = 0.8;

/** Sockets at once. Where there is no `/proc` it stays at what every system allows. */
async function readMaxSockets(): Promise<number> {
  const limits = await Bun.file("/proc/self/limits")
    .text()
    .catch(() => "");
  const openFiles = /^Max open files +(\d+)/m.exec(limits)?.[1];
  return openFiles ? Math.floor(Number(openFiles) * SOCKET_SHARE) : DEFAULT_LIMITS.maxSockets;
}

/** Serves the text of `read` under `/metrics`, and nothing else, on a port of its own. */
export function serveMetrics(options: {
  hostname: string;
  port: number;
  read: () => Promise<string>;
}): Bun.Server<undefined> {
  const { hostname, port, read } = options;
  return Bun.serve({
    hostname,
    port,
    reusePort: false,
    development: false,
    routes: {
      "/metrics": {
        GET: async () =>
          new Response(await read(), {
            headers: { ...ANSWER_HEADERS, "Content-Type": "text/plain; version=0.0.4" },
          }),
      },
    },
    fetch: () => refusalResponse(refuse("not_found")),
    error: () => refusalResponse(refuse("internal_error")),
  });
}
