/// <reference lib="esnext.disposable" preserve="true" />
import { type Gate, partsOf } from "../gate/gate.ts";
import { withinDeadline } from "../lib/deadline.ts";
import { faultCode } from "../lib/log.ts";
import { clientAddress, limitKey } from "../request/address.ts";
import { type ConnectionInfo, headersFor, readRequest } from "../request/incoming.ts";
import { refusalResponse, refuse } from "../request/refusal.ts";
import { SOCKET_PATH } from "../wire/paths.ts";
import { guardFiles } from "./connections.ts";
import { listenPrivately } from "./unix.ts";
import type { SocketLimits } from "./limits.ts";
import { createPace } from "./pace.ts";
import type { SocketData, SocketHandlers } from "./socket.ts";
import { connectionOf, openSocketRoom, type SocketRoom, type StopOptions } from "./sockets.ts";

/** Largest body that Bun reads before a route sees it, in bytes. */
const MAX_BODY_BYTES = 1024 * 1024;
/** Turns of the event loop in which the last responses may leave. */
const FLUSH_TURNS = 1_000;
/** Least time for the handlers to stop, in milliseconds. */
const MIN_STOP_MS = 1_000;

/** Where to listen, and for what. */
export interface ServeOptions {
  /** Where sockets are opened. Default `/ws/chat`. */
  readonly path?: string | undefined;
  /** Default 127.0.0.1. */
  readonly hostname?: string | undefined;
  /** Default 0: any free port. */
  readonly port?: number | undefined;
  /**
   * Path of a unix socket to listen on, in place of host and port, for processes of the same user and group. There
   * are no addresses then but those that `trustProxy` believes.
   */
  readonly unix?: string | undefined;
  /** See `SocketLimits` for the defaults. */
  readonly limits?: Partial<SocketLimits> | undefined;
  /**
   * Answers every request that is neither for the gate nor for a socket. Default: 404. Beyond 700 responses at once
   * and 1,000 a second to one address, loopback excepted, each waits for up to a second, unless it is to a `POST`.
   */
  readonly fetch?:
    ((request: Request, connection: ConnectionInfo) => Response | Promise<Response>) | undefined;
}

/** A running server. `await using` stops it at the end of the block. */
export interface RunningServer extends AsyncDisposable {
  /** Where it listens. */
  readonly url: URL;
  /** Open sockets. */
  readonly socketCount: number;
  /** Sockets that may be open at once. */
  readonly maxSockets: number;
  /** Whether it has begun to stop. */
  readonly isStopping: boolean;
  /**
   * Refuses new handshakes, closes every socket with 1012, finishes the requests in progress, and then calls
   * the handlers' `stop`. The gate stays open: its owner closes it. Further calls return the first one's
   * promise. Rejects when the handlers failed to stop in time.
   */
  stop(options?: StopOptions): Promise<void>;
}

const rooms = new WeakMap<RunningServer, SocketRoom>();

/** The sockets of a server that `serve` started. */
export function roomOf(server: RunningServer): SocketRoom {
  return rooms.get(server) as SocketRoom;
}

/**
 * Starts a `Bun.serve` with the gate's routes and sockets at `path`. Throws when the address is taken, and as
 * `createSockets` does.
 *
 * @example
 * await using gate = createGate({ users: { secret } });
 * await using server = serve(gate, { message: (socket, _, text) => socket.send(text) }, { path: "/live" });
 */
export function serve<Claims = unknown>(
  gate: Gate<Claims>,
  handlers: SocketHandlers<Claims>,
  options: ServeOptions = {},
): RunningServer {
  const { path = SOCKET_PATH, hostname = "127.0.0.1", port = 0, unix, limits, fetch } = options;
  if (!/^\/[^?#]*$/.test(path)) throw new TypeError("Option path must be a path such as /live");
  const parts = partsOf(gate as Gate);
  const { clock, log, policy } = parts;
  const sockets = openSocketRoom(parts, handlers as SocketHandlers, limits);
  const routePrefix = `${gate.basePath}/`;
  const pace = createPace(clock);
  const requests = new Set<Request>();
  let whenIdle: (() => void) | undefined;
  let stopping: Promise<void> | undefined;

  async function answer(
    request: Request,
    connection: ConnectionInfo,
  ): Promise<Response | undefined> {
    const read = readRequest(request, policy, connection);
    // What has no usable URL is neither for the gate nor for a socket.
    if (!read.ok) return fetch ? fetch(request, connection) : refusalResponse(read);
    const { incoming } = read;
    const { pathname } = incoming.url;
    if (pathname === path) return sockets.upgrade(incoming, server);
    if (pathname.startsWith(routePrefix)) return parts.handle(incoming);
    if (fetch) return fetch(request, connection);
    return refusalResponse(refuse("not_found"), headersFor(incoming));
  }

  /** Whom limits count a request for. */
  function addressOf(
    request: Request,
    connection = connectionOf(request, server),
  ): string | undefined {
    return limitKey(clientAddress(request, connection, policy.trustProxy));
  }

  /** What a `POST` does has a limit of its own, and so have sockets: they needn't wait for their address to be found out. */
  function hold(
    { status }: Response,
    request: Request,
    connection: ConnectionInfo,
  ): Promise<boolean> | undefined {
    const isRefusal = status >= 400 && status < 500;
    if (!isRefusal && request.method === "POST") return undefined;
    const address = addressOf(request, connection);
    if (address === undefined) return undefined;
    return isRefusal ? pace.refusal(address, request.signal) : pace.read(address, request.signal);
  }

  // By default Bun would share a port that is already taken.
  const address = unix === undefined ? { hostname, port, reusePort: false } : { unix };
  const listen = () =>
    Bun.serve<SocketData>({
      ...address,
      development: false,
      maxRequestBodySize: MAX_BODY_BYTES,
      websocket: sockets.websocket,
      async fetch(request) {
        requests.add(request);
        const connection = connectionOf(request, server);
        try {
          const response = await answer(request, connection);
          const mayStay = (response && (await hold(response, request, connection))) ?? true;
          if (!mayStay || files.areScarce) response?.headers.set("Connection", "close");
          return response;
        } finally {
          requests.delete(request);
          if (requests.size === 0) whenIdle?.();
        }
      },
      error(error) {
        log("error", "request_failed", { code: faultCode(error) });
        return refusalResponse(refuse("internal_error"));
      },
    });
  const server = unix === undefined ? listen() : listenPrivately(listen);
  const files = guardFiles({ server, requests, addressOf, log });

  try {
    // Not before it listens: where the port is taken, the same handlers may be served at another one.
    sockets.begin();
  } catch (error) {
    files.end();
    void server.stop(true);
    throw error;
  }

  async function stopAll({ withinMs = 10_000, spreadMs = 0 }: StopOptions = {}): Promise<void> {
    const endMs = clock.monotonicMs() + withinMs;
    const leftMs = () => Math.max(1, endMs - clock.monotonicMs());
    pace.end();
    await sockets.drain({ withinMs, spreadMs });
    // Accepts nothing more. Its promise also waits for connections without a request; we don't.
    void server.stop();
    const idle = new Promise<void>((resolve) => {
      whenIdle = resolve;
      if (requests.size === 0) resolve();
    });
    await withinDeadline(idle, leftMs(), clock).catch(() => {});
    for (let turn = 0; turn < FLUSH_TURNS && server.pendingRequests > 0; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    files.end();
    await server.stop(true);
    await withinDeadline(
      Promise.resolve(handlers.stop?.()),
      Math.max(MIN_STOP_MS, leftMs()),
      clock,
    );
  }

  const self: RunningServer = {
    url: server.url,
    get socketCount() {
      return sockets.size;
    },
    maxSockets: sockets.maxSockets,
    get isStopping() {
      return sockets.isStopping;
    },
    stop: (stopOptions) => (stopping ??= stopAll(stopOptions)),
    [Symbol.asyncDispose]: () => self.stop(),
  };
  rooms.set(self, sockets);
  return self;
}
