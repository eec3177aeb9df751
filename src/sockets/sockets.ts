import type { Identity } from "../gate/admit.ts";
import type { Deps } from "../gate/gate.ts";
import { createRateLimit } from "../lib/limit.ts";
import { faultCode, type LogFields } from "../lib/log.ts";
import { covers, type Revocation } from "../gate/store.ts";

/** Codes in the Close frame (RFC 6455 section 7.4). 4000–4499: come back with a new ticket; 4500–4999: don't by yourself. */
export const CLOSE = {
  unsupportedData: 1003,
  internalError: 1011,
  serviceRestart: 1012,
  credentialExpired: 4001,
  noHeartbeat: 4002,
  slowReader: 4003,
  signedOut: 4500,
  flooding: 4501,
  tooManySockets: 4502,
} as const;

/** Messages of one socket that may wait for an earlier one; beyond it the socket floods. */
const MAX_WAITING_MESSAGES = 1_024;
/** Unsent bytes to one socket that make it a slow reader. */
const SLOW_READER_BYTES = 1024 * 1024;
/** Unsent bytes at which Bun itself cuts a socket off, before the next sweep finds it. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;
/** How often all sockets are looked at, in milliseconds. */
const SWEEP_INTERVAL_MS = 1_000;
/** Time between two pings, in milliseconds; a peer that leaves two unanswered is gone at the third. */
export const BEAT_MS = 25_000;
const MAX_MISSED_BEATS = 2;
/** How long before its end a socket is told, in milliseconds; half its life if that is shorter. */
const EXPIRY_NOTICE_MS = 30_000;
/** How long a revocation is remembered for sockets that were admitted before it and open after it, in milliseconds. */
const REVOCATION_MEMORY_MS = 60_000;

/** What a socket carries. */
export interface SocketData {
  readonly identity: Identity;
  /** Messages under way, and the last of them: a socket's messages are handled one after the other. */
  waiting: number;
  last: Promise<void> | undefined;
  /** Monotonic clock, in milliseconds. */
  nextBeatMs: number;
  missedBeats: number;
  /** Wall clock, in milliseconds; infinite once it was told. */
  tellExpiryAtMs: number;
  /** Whether the handlers have heard of it. */
  announced: boolean;
  /** Whether it was closed from here; the runtime cuts a peer off that doesn't answer within some 4 s. */
  ended: boolean;
}

export type Socket = Bun.ServerWebSocket<SocketData>;

/** What to do with admitted sockets. Each call is given the socket and whose it is; a throw closes it with 1011. */
export interface SocketHandlers {
  /** Once, before the first socket: how to send to all sockets of a topic. */
  start?(publish: (topic: string, text: string) => void): void;
  open?(socket: Socket, identity: Identity): void;
  /** One text message. The socket's next one waits until a returned promise is settled. */
  message(socket: Socket, identity: Identity, text: string): void | Promise<void>;
  /** Its credential ends in so many seconds: time to open the next socket with a new ticket. */
  expiring?(socket: Socket, identity: Identity, inSeconds: number): void;
  /** After its end, whoever ended it; not for a socket that `open` was never told of. */
  close?(socket: Socket, identity: Identity): void;
  /** Once, after the last socket. */
  stop?(): Promise<void>;
}

export interface SocketLimits {
  /** Open at once, all together. */
  readonly maxSockets: number;
  /** Open at once per user or visitor; 0 for no limit. */
  readonly maxPerIdentity: number;
  /** Per socket, with a burst of as many; 0 for no limit. */
  readonly messagesPerSecond: number;
  readonly maxMessageBytes: number;
}

/** The open sockets of a server: by identity, within their limits, ended when they should, and never able to bring the process down. */
export interface Sockets {
  readonly websocket: Bun.WebSocketHandler<SocketData>;
  readonly size: number;
  /** What a new socket carries. */
  dataFor(identity: Identity): SocketData;
  /** Ends those that a revocation covers, also those still to open. */
  revoke(revocation: Revocation): void;
  /** Closes all of them, evenly spread over `spreadMs` (default: at once). */
  closeAll(code: number, reason: string, spreadMs?: number): Promise<void>;
  /** Cuts off whoever is still there, without a word. */
  terminateAll(): void;
  stop(): void;
}

export function createSockets(
  deps: Pick<Deps, "clock" | "log">,
  handlers: SocketHandlers,
  limits: SocketLimits,
): Sockets {
  const { clock, log } = deps;
  const byIdentity = new Map<string, Set<Socket>>();
  /** By whose they are and what of it they end. */
  const recentRevocations = new Map<string, { revocation: Revocation; atMs: number }>();
  const messages = createRateLimit<Socket>({
    allowed: limits.messagesPerSecond,
    windowMs: 1_000,
    clock,
  });
  let size = 0;
  const stopSweep = clock.every(SWEEP_INTERVAL_MS, sweep);

  /** More than one identity may have. Those that were told to make room don't count, or nobody could renew at the limit. */
  function isCrowd(own: Set<Socket>): boolean {
    const { maxPerIdentity } = limits;
    if (maxPerIdentity === 0 || own.size <= maxPerIdentity) return false;
    const isTold = ({ data }: Socket) => data.tellExpiryAtMs === Number.POSITIVE_INFINITY;
    return [...own].filter((socket) => !isTold(socket)).length > maxPerIdentity;
  }

  function end(socket: Socket, code: number, reason: string): void {
    const { data } = socket;
    if (data.ended) return;
    data.ended = true;
    log("info", "socket_ended", { ...who(data.identity), code });
    socket.close(code, reason);
  }

  function isRevoked(identity: Identity): boolean {
    if (recentRevocations.size === 0) return false;
    return [...recentRevocations.values()].some(({ revocation }) => covers(revocation, identity));
  }

  function fail(socket: Socket, error: unknown): void {
    log("error", "socket_failed", { ...who(socket.data.identity), code: faultCode(error) });
    end(socket, CLOSE.internalError, "Server error");
  }

  /** Runs a handler so that neither a throw nor a rejection leaves it (either would end the process). */
  function guard(socket: Socket, run: () => void | Promise<void>): void | Promise<void> {
    try {
      const handling = run();
      // What is declared to return nothing may return anything, such as the bytes that `send` wrote.
      if (handling instanceof Promise) return handling.catch((error) => fail(socket, error));
    } catch (error) {
      fail(socket, error);
    }
  }

  /** A message whose turn comes after its socket was ended from here isn't handled any more. */
  function inTurn(socket: Socket, run: () => void | Promise<void>): void {
    const { data } = socket;
    const handling = data.last
      ? data.last.then(() => (data.ended ? undefined : guard(socket, run)))
      : guard(socket, run);
    if (!handling) return;
    if (++data.waiting > MAX_WAITING_MESSAGES) end(socket, CLOSE.flooding, "Too many messages");
    data.last = handling.then(() => {
      if (--data.waiting === 0) data.last = undefined;
    });
  }

  /** Everything that time does to sockets: one look at each per second, no timer for any. */
  function sweep(): void {
    const nowMs = clock.monotonicMs();
    const wallMs = clock.nowMs();
    for (const [key, { atMs }] of recentRevocations) {
      if (nowMs - atMs >= REVOCATION_MEMORY_MS) recentRevocations.delete(key);
    }
    for (const own of byIdentity.values()) {
      for (const socket of own) guard(socket, () => check(socket, nowMs, wallMs));
    }
  }

  function check(socket: Socket, nowMs: number, wallMs: number): void {
    const { data } = socket;
    const { identity } = data;
    if (identity.expiresAtMs <= wallMs) {
      return end(socket, CLOSE.credentialExpired, "Credential expired");
    }
    if (socket.getBufferedAmount() > SLOW_READER_BYTES) {
      return end(socket, CLOSE.slowReader, "Reads too slowly");
    }
    if (nowMs >= data.nextBeatMs) {
      if (data.missedBeats >= MAX_MISSED_BEATS)
        return end(socket, CLOSE.noHeartbeat, "No heartbeat");
      data.missedBeats++;
      data.nextBeatMs = nowMs + BEAT_MS;
      socket.ping();
    }
    if (wallMs >= data.tellExpiryAtMs) {
      data.tellExpiryAtMs = Number.POSITIVE_INFINITY;
      const inSeconds = Math.round((identity.expiresAtMs - wallMs) / 1000);
      handlers.expiring?.(socket, identity, inSeconds);
    }
  }

  const websocket: Bun.WebSocketHandler<SocketData> = {
    data: {} as SocketData,
    maxPayloadLength: limits.maxMessageBytes,
    backpressureLimit: MAX_BACKLOG_BYTES,
    closeOnBackpressureLimit: true,
    // Bun's own timeout doesn't see a dead peer that is being sent to; the sweep's heartbeat does.
    sendPings: false,
    idleTimeout: 0,
    open(socket) {
      const { identity } = socket.data;
      const own = byIdentity.get(keyOf(identity)) ?? new Set();
      byIdentity.set(keyOf(identity), own.add(socket));
      size++;
      if (isRevoked(identity)) {
        end(socket, CLOSE.signedOut, "Signed out");
      } else if (isCrowd(own)) {
        end(socket, CLOSE.tooManySockets, "Too many sockets");
      } else {
        socket.data.announced = true;
        guard(socket, () => handlers.open?.(socket, identity));
      }
    },
    message(socket, message) {
      const { data } = socket;
      data.missedBeats = 0;
      if (data.ended) return;
      if (typeof message !== "string") return end(socket, CLOSE.unsupportedData, "Text only");
      if (messages.waitMs(socket) > 0) return end(socket, CLOSE.flooding, "Too many messages");
      messages.count(socket);
      inTurn(socket, () => handlers.message(socket, data.identity, message));
    },
    pong(socket) {
      socket.data.missedBeats = 0;
    },
    close(socket, code) {
      const { identity, announced } = socket.data;
      const own = byIdentity.get(keyOf(identity));
      own?.delete(socket);
      if (own?.size === 0) byIdentity.delete(keyOf(identity));
      messages.forget(socket);
      size--;
      log("info", "socket_closed", { ...who(identity), code });
      if (announced) guard(socket, () => handlers.close?.(socket, identity));
    },
  };

  return {
    websocket,
    get size() {
      return size;
    },
    dataFor(identity) {
      const nowMs = clock.nowMs();
      const lifeMs = identity.expiresAtMs - nowMs;
      return {
        identity,
        waiting: 0,
        last: undefined,
        nextBeatMs: clock.monotonicMs() + BEAT_MS,
        missedBeats: 0,
        tellExpiryAtMs: identity.expiresAtMs - Math.min(EXPIRY_NOTICE_MS, lifeMs / 2),
        announced: false,
        ended: false,
      };
    },
    revoke(revocation) {
      const key = `${keyOf(revocation)} ${revocation.session ?? ""}`;
      recentRevocations.set(key, { revocation, atMs: clock.monotonicMs() });
      for (const socket of byIdentity.get(keyOf(revocation)) ?? []) {
        if (covers(revocation, socket.data.identity)) end(socket, CLOSE.signedOut, "Signed out");
      }
    },
    async closeAll(code, reason, spreadMs = 0) {
      const all = [...byIdentity.values()].flatMap((own) => [...own]);
      const startedAtMs = performance.now();
      for (const [at, socket] of all.entries()) {
        const dueMs = startedAtMs + (spreadMs * at) / all.length;
        if (dueMs - performance.now() > 10) await Bun.sleep(dueMs - performance.now());
        end(socket, code, reason);
      }
    },
    terminateAll() {
      for (const own of byIdentity.values()) for (const socket of own) socket.terminate();
    },
    stop: stopSweep,
  };
}

/** One string per identity; a visitor can't be written so that it reads as a user. */
export function keyOf({ kind, id }: Pick<Identity, "kind" | "id">): string {
  return `${kind}:${id}`;
}

/** An identity as log fields. */
export function who({ kind, id }: Pick<Identity, "kind" | "id">): LogFields {
  return { [kind]: id };
}
