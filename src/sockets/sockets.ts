/// <reference lib="esnext.disposable" preserve="true" />
import { type Gate, type GateParts, partsOf, requireFeed } from "../gate/gate.ts";
import { type Identity, identityFields } from "../gate/identity.ts";
import type { Connection } from "../gate/live.ts";
import { pause } from "../lib/clock.ts";
import { createCounts } from "../lib/counts.ts";
import { withinDeadline } from "../lib/deadline.ts";
import { faultCode } from "../lib/log.ts";
import { type ConnectionInfo, type Incoming, readRequest } from "../request/incoming.ts";
import { refusalResponse, refuse, refuseFor } from "../request/refusal.ts";
import { CLOSE, type Close } from "../wire/close.ts";
import { createMessageLimit, readLimits, type SocketLimits } from "./limits.ts";
import {
  BEAT_MS,
  type Socket,
  type SocketData,
  type SocketHandlers,
  SocketState,
  stateOf,
} from "./socket.ts";

/** Handshakes in progress at once; further ones are refused. */
const MAX_HANDSHAKES = 1_000;
/** Messages of one socket that may wait for an earlier one; beyond it the socket floods. */
const MAX_PENDING_MESSAGES = 1_024;
/** Unsent bytes to one socket that make it a slow reader. */
const SLOW_READER_BYTES = 1024 * 1024;
/** Unsent bytes at which Bun itself cuts a socket off, before the next check finds it. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;
/** How often all sockets are checked, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000;
const MAX_MISSED_BEATS = 2;
/** A query that has a ticket and nothing else, which needn't be kept. */
const TICKET_ALONE = /^\?ticket=[\w-]{43}$/;
/** Longest step of a spread-out goodbye, in milliseconds. */
const SPREAD_STEP_MS = 10;

/** How to stop. */
export interface StopOptions {
  /** Default 10,000. */
  readonly withinMs?: number | undefined;
  /** How long the goodbyes are spread over, so that clients don't all come back at once. Default 0. */
  readonly spreadMs?: number | undefined;
}

/** The open sockets of a gate. `await using` stops them at the end of the block. */
export interface Sockets<Claims = unknown> extends AsyncDisposable {
  /** For `Bun.serve`. */
  readonly websocket: Bun.WebSocketHandler<SocketData<Claims>>;
  /** Open now. */
  readonly size: number;
  /**
   * Answers a WebSocket handshake: the refusal as a response, or `undefined` once the socket is open. Never
   * rejects.
   */
  upgrade(request: Request, server: Bun.Server<SocketData<Claims>>): Promise<Response | undefined>;
  /**
   * Refuses new handshakes, closes every socket with 1012, and then calls the handlers' `stop`. Further calls
   * return the first one's promise. Rejects when the handlers failed to stop in time.
   */
  stop(options?: StopOptions): Promise<void>;
}

/** What `serve` uses of its own sockets, too. */
export interface SocketRoom extends Omit<Sockets, "upgrade"> {
  readonly isStopping: boolean;
  readonly maxSockets: number;
  /** Whether any peer has yet to respond to a ping. */
  readonly awaitsPongs: boolean;
  /** Once, before the first socket: starts the handlers and the checks. */
  begin(): void;
  upgrade(incoming: Incoming, server: Bun.Server<SocketData>): Promise<Response | undefined>;
  /** The first part of `stop`: says goodbye to everybody. */
  drain(options?: StopOptions): Promise<void>;
}

/**
 * Opens sockets for those whom `gate` admits, and closes them when their credential ends, is revoked here or
 * by another process, when they flood, read too slowly or go silent. For a `Bun.serve` of your own; `serve`
 * comes with one. It owns `handlers`, and not the gate. Throws an `Error` for a gate whose store doesn't receive
 * the sign-outs of other processes, and a `TypeError` or `RangeError` for options that can't be used.
 *
 * @example
 * const sockets = createSockets(gate, { message: (socket, _, text) => socket.send(text) });
 * Bun.serve({
 *   fetch: (request, server) => sockets.upgrade(request, server),
 *   websocket: sockets.websocket,
 * });
 */
export function createSockets<Claims = unknown>(
  gate: Gate<Claims>,
  handlers: SocketHandlers<Claims>,
  limits?: Partial<SocketLimits>,
): Sockets<Claims> {
  const parts = partsOf(gate as Gate);
  const room = openSocketRoom(parts, handlers as SocketHandlers, limits);
  room.begin();
  return {
    websocket: room.websocket as unknown as Bun.WebSocketHandler<SocketData<Claims>>,
    get size() {
      return room.size;
    },
    async upgrade(request, server) {
      const read = readRequest(request, parts.policy, connectionOf(request, server));
      return read.ok
        ? room.upgrade(read.incoming, server as unknown as Bun.Server<SocketData>)
        : refusalResponse(read);
    },
    stop: room.stop,
    [Symbol.asyncDispose]: () => room.stop(),
  };
}

/** What a request's connection is known by, found out only where it counts. */
export function connectionOf(
  request: Request,
  server: Pick<Bun.Server<unknown>, "requestIP">,
): ConnectionInfo {
  return {
    get socketAddress() {
      return server.requestIP(request)?.address;
    },
  };
}

export function openSocketRoom(
  parts: GateParts,
  handlers: SocketHandlers,
  limitOptions?: Partial<SocketLimits>,
): SocketRoom {
  requireFeed(parts.store);
  if (typeof handlers?.message !== "function") {
    throw new TypeError("Socket handlers must have a method message");
  }
  const { clock, log, live } = parts;
  const limits = readLimits(limitOptions);
  let size = 0;
  /** Sockets and handshakes in progress. */
  const perAddress = createCounts<string>();
  const mayReceiveFrom = createMessageLimit(limits, clock);
  let server: Bun.Server<SocketData> | undefined;
  let handshakes = 0;
  let stopping: Promise<void> | undefined;
  let isStopping = false;
  let stopChecks = () => {};

  /** Whether an identity has too many. Sockets that had notice don't count, or renewing at the limit would fail. */
  function isCrowded(state: SocketState): boolean {
    const { maxPerIdentity } = limits;
    if (maxPerIdentity === 0) return false;
    const own = live.of(state.identity);
    if (own.length <= maxPerIdentity) return false;
    const counted = own.filter((one) => one instanceof SocketState && !one.hadNotice);
    return counted.length > maxPerIdentity;
  }

  function isOwn(connection: Connection): connection is SocketState {
    return connection instanceof SocketState && connection.room === room;
  }

  function forEach(run: (state: SocketState) => void): void {
    live.forEach((connection) => {
      if (isOwn(connection)) run(connection);
    });
  }

  function socketsOf(identity: Pick<Identity, "kind" | "id">): readonly Socket[] {
    const sockets: Socket[] = [];
    for (const one of live.of(identity)) {
      if (isOwn(one) && one.socket) sockets.push(one.socket);
    }
    return sockets;
  }

  function fail({ data }: Socket, error: unknown): void {
    const state = data as unknown as SocketState;
    log("error", "socket_failed", { ...identityFields(state.identity), code: faultCode(error) });
    state.end(CLOSE.internalError);
  }

  /** Runs a handler so that neither a throw nor a rejection leaves it: either would end the process. */
  function guard(socket: Socket, run: () => unknown): Promise<void> | undefined {
    try {
      const handling = run();
      if (!(handling instanceof Promise)) return undefined;
      return handling.then(
        () => {},
        (error) => fail(socket, error),
      );
    } catch (error) {
      fail(socket, error);
      return undefined;
    }
  }

  /** A message whose turn comes after its socket was closed from here isn't handled any more. */
  function inTurn(socket: Socket, run: () => unknown): void {
    const state = stateOf(socket);
    const handling = state.last
      ? state.last.then(() => (state.isEnded ? undefined : guard(socket, run)))
      : guard(socket, run);
    if (!handling) return;
    if (++state.pending > MAX_PENDING_MESSAGES) state.end(CLOSE.flooding);
    state.last = handling.then(() => {
      if (--state.pending === 0) state.last = undefined;
    });
  }

  /** Whether the identity and its address may send one more, of this length; otherwise the socket is closed. */
  function mayReceive(state: SocketState, length = 0): boolean {
    if (mayReceiveFrom(state, length)) return true;
    state.end(CLOSE.flooding);
    return false;
  }

  function checkAll(): void {
    const nowMs = clock.monotonicMs();
    const wallMs = clock.nowMs();
    forEach((state) => {
      const { socket } = state;
      if (socket) guard(socket, () => check(socket, state, nowMs, wallMs));
    });
  }

  function check(socket: Socket, state: SocketState, nowMs: number, wallMs: number): void {
    if (socket.getBufferedAmount() > SLOW_READER_BYTES) return state.end(CLOSE.slowReader);
    if (nowMs >= state.nextBeatMs) {
      if (state.missedBeats >= MAX_MISSED_BEATS) return state.end(CLOSE.noHeartbeat);
      state.missedBeats++;
      state.nextBeatMs = nowMs + BEAT_MS;
      socket.ping();
      handlers.heartbeat?.(socket, state.identity);
    }
    const { identity } = state;
    if (wallMs >= state.noticeAtMs && identity.expiresAtMs > wallMs) {
      state.noticeAtMs = Number.POSITIVE_INFINITY;
      const inSeconds = Math.round((identity.expiresAtMs - wallMs) / 1000);
      handlers.expiring?.(socket, identity, inSeconds);
    }
  }

  const websocket: Bun.WebSocketHandler<SocketData> = {
    data: {} as SocketData,
    maxPayloadLength: limits.maxMessageBytes,
    backpressureLimit: MAX_BACKLOG_BYTES,
    closeOnBackpressureLimit: true,
    // Bun's own timeout doesn't notice a dead peer that is being sent to; the heartbeat does.
    sendPings: false,
    idleTimeout: 0,
    open(socket) {
      const state = stateOf(socket);
      state.socket = socket;
      size++;
      countAddress(state.limitKey, 1);
      live.add(state);
      if (state.isEnded) return;
      if (isCrowded(state)) return state.end(CLOSE.tooManySockets);
      state.isAnnounced = true;
      guard(socket, () => handlers.open?.(socket, state.identity));
    },
    message(socket, message) {
      const state = stateOf(socket);
      state.missedBeats = 0;
      if (state.isEnded) return;
      if (typeof message !== "string") return state.end(CLOSE.unsupportedData);
      if (mayReceive(state, message.length))
        inTurn(socket, () => handlers.message(socket, state.identity, message));
    },
    ping(socket) {
      const state = stateOf(socket);
      state.missedBeats = 0;
      if (!state.isEnded) mayReceive(state);
    },
    pong(socket) {
      const state = stateOf(socket);
      // One that wasn't asked for is as much work as a ping.
      if (state.missedBeats === 0 && !state.isEnded) mayReceive(state);
      state.missedBeats = 0;
    },
    close(socket, code) {
      const state = stateOf(socket);
      size--;
      live.remove(state);
      countAddress(state.limitKey, -1);
      log("info", "socket_closed", { ...identityFields(state.identity), code });
      if (state.isAnnounced) guard(socket, () => handlers.close?.(socket, state.identity));
    },
  };

  async function upgrade(
    incoming: Incoming,
    on: Bun.Server<SocketData>,
  ): Promise<Response | undefined> {
    server = on;
    if (isStopping) return refusalResponse(refuse("shutting_down"));
    if (handshakes >= MAX_HANDSHAKES || size + handshakes >= limits.maxSockets) {
      log("warn", "socket_refused", { code: "too_many_requests", note: "The server is full" });
      return refusalResponse(refuseFor(1_000));
    }
    // Read now: once the socket is open, the runtime doesn't know it any more.
    const { limitKey } = incoming;
    handshakes++;
    countAddress(limitKey, 1);
    try {
      return await shakeHands(incoming, on, limitKey);
    } catch (error) {
      log("error", "request_failed", { code: faultCode(error) });
      return refusalResponse(refuse("internal_error"));
    } finally {
      handshakes--;
      countAddress(limitKey, -1);
    }
  }

  async function shakeHands(
    incoming: Incoming,
    on: Bun.Server<SocketData>,
    limitKey: string | undefined,
  ): Promise<Response | undefined> {
    const startedAtMs = clock.monotonicMs();
    const { address: peer, request, url } = incoming;
    const admitted = isCrowdedAddress(limitKey) ? refuseFor(1_000) : await parts.admit(incoming);
    // It may have begun to stop meanwhile.
    const admission = admitted.ok && isStopping ? refuse("shutting_down") : admitted;
    const durationMs = Math.round(clock.monotonicMs() - startedAtMs);
    const fields = { ...(peer && { peer }), durationMs };
    if (!admission.ok) {
      log("info", "socket_refused", { ...fields, code: admission.code });
      return refusalResponse(admission);
    }
    const { identity, ticketTag } = admission;
    const search = TICKET_ALONE.test(url.search) ? "" : url.search;
    const data = new SocketState({ identity, search, room, limitKey, clock, log });
    // False where the client has gone meanwhile.
    const isUpgraded = request.headers.has("sec-websocket-protocol")
      ? // Bun would echo the first subprotocol offered, whatever it is.
        on.upgrade(request, { data, headers: { "Sec-WebSocket-Protocol": "" } })
      : on.upgrade(request, { data });
    log("info", isUpgraded ? "socket_opened" : "client_gone", {
      ...fields,
      ...identityFields(identity),
      ...(ticketTag && { ticketTag }),
    });
    return isUpgraded ? undefined : refusalResponse(refuse("handshake_invalid"));
  }

  function countAddress(limitKey: string | undefined, change: 1 | -1): void {
    if (limitKey !== undefined) perAddress.add(limitKey, change);
  }

  function isCrowdedAddress(limitKey: string | undefined): boolean {
    if (limitKey === undefined || limits.maxPerAddress === 0) return false;
    return perAddress.of(limitKey) > limits.maxPerAddress;
  }

  /** Closes all of them, evenly spread over `spreadMs`. */
  async function closeAll(close: Close, spreadMs: number): Promise<void> {
    const all: SocketState[] = [];
    forEach((state) => void all.push(state));
    const startedAtMs = clock.monotonicMs();
    for (const [at, state] of all.entries()) {
      const waitMs = startedAtMs + (spreadMs * at) / all.length - clock.monotonicMs();
      if (waitMs > SPREAD_STEP_MS) await pause(waitMs, clock);
      state.end(close);
    }
  }

  async function drain({ withinMs = 10_000, spreadMs = 0 }: StopOptions = {}): Promise<void> {
    isStopping = true;
    await closeAll(CLOSE.serviceRestart, Math.min(spreadMs, withinMs));
    stopChecks();
  }

  const room: SocketRoom = {
    websocket,
    maxSockets: limits.maxSockets,
    get size() {
      return size;
    },
    get isStopping() {
      return isStopping;
    },
    get awaitsPongs() {
      let isAny = false;
      forEach(({ missedBeats }) => {
        isAny ||= missedBeats > 0;
      });
      return isAny;
    },
    begin() {
      handlers.start?.((topic, text) => void server?.publish(topic, text), socketsOf);
      stopChecks = clock.every(CHECK_INTERVAL_MS, checkAll);
    },
    upgrade,
    drain,
    stop(options) {
      return (stopping ??= (async () => {
        await drain(options);
        const stopped = Promise.resolve(handlers.stop?.());
        await withinDeadline(stopped, options?.withinMs ?? 10_000, clock);
      })());
    },
    [Symbol.asyncDispose]: () => room.stop(),
  };
  return room;
}
