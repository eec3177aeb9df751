import type { Identity } from "./admit.ts";
import type { Deps } from "./deps.ts";
import { createRateLimit } from "./limit.ts";
import { faultCode, type LogFields } from "./log.ts";

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
/** Unsent bytes to one socket at which Bun cuts it off. */
const MAX_BACKLOG_BYTES = 4 * 1024 * 1024;

/** What a socket carries. */
export interface SocketData {
  readonly identity: Identity;
  /** Messages under way, and the last of them: a socket's messages are handled one after the other. */
  waiting: number;
  last: Promise<void>;
}

export type Socket = Bun.ServerWebSocket<SocketData>;

/** What to do with admitted sockets. Each call is given the socket and whose it is; a throw closes it with 1011. */
export interface SocketHandlers {
  /** Once, before the first socket: how to send to all sockets of a topic, and how to close them all. */
  start?(
    publish: (topic: string, text: string) => void,
    endAll: (code: number, reason: string) => void,
  ): void;
  /** Before each socket: a rejection refuses it with 503. */
  ready?(): Promise<void>;
  open?(socket: Socket, identity: Identity): void;
  /** One text message. The socket's next one waits until a returned promise is settled. */
  message(socket: Socket, identity: Identity, text: string): void | Promise<void>;
  close?(socket: Socket, identity: Identity): void;
  /** Once, after the last socket. */
  stop?(): Promise<void>;
}

export interface SocketLimits {
  /** Open at once per user or visitor; 0 for no limit. */
  readonly maxPerIdentity: number;
  /** Per socket, with a burst of as many; 0 for no limit. */
  readonly messagesPerSecond: number;
  readonly maxMessageBytes: number;
}

/** The open sockets of a server: by identity, within their limits, and never able to bring the process down. */
export interface Sockets {
  readonly websocket: Bun.WebSocketHandler<SocketData>;
  readonly size: number;
  closeAll(code: number, reason: string): void;
}

export function createSockets(
  deps: Pick<Deps, "clock" | "log">,
  handlers: SocketHandlers,
  limits: SocketLimits,
): Sockets {
  const { clock, log } = deps;
  const byIdentity = new Map<string, Set<Socket>>();
  const messages = createRateLimit<Socket>({
    allowed: limits.messagesPerSecond,
    windowMs: 1_000,
    clock,
  });
  let size = 0;

  function end(socket: Socket, code: number, reason: string): void {
    log("info", "socket_ended", { ...who(socket.data.identity), code });
    socket.close(code, reason);
  }

  function fail(socket: Socket, error: unknown): void {
    log("error", "socket_failed", { ...who(socket.data.identity), code: faultCode(error) });
    socket.close(CLOSE.internalError, "Server error");
  }

  /** Runs a handler so that neither a throw nor a rejection leaves it (either would end the process). */
  function guard(socket: Socket, run: () => void | Promise<void>): void | Promise<void> {
    try {
      return run()?.catch((error) => fail(socket, error));
    } catch (error) {
      fail(socket, error);
    }
  }

  function inTurn(socket: Socket, run: () => void | Promise<void>): void {
    const { data } = socket;
    const handling =
      data.waiting === 0 ? guard(socket, run) : data.last.then(() => guard(socket, run));
    if (!handling) return;
    if (++data.waiting > MAX_WAITING_MESSAGES) end(socket, CLOSE.flooding, "Too many messages");
    data.last = handling.then(() => {
      data.waiting--;
    });
  }

  const websocket: Bun.WebSocketHandler<SocketData> = {
    data: {} as SocketData,
    maxPayloadLength: limits.maxMessageBytes,
    backpressureLimit: MAX_BACKLOG_BYTES,
    closeOnBackpressureLimit: true,
    open(socket) {
      const { identity } = socket.data;
      const own = byIdentity.get(keyOf(identity)) ?? new Set();
      byIdentity.set(keyOf(identity), own.add(socket));
      size++;
      if (limits.maxPerIdentity > 0 && own.size > limits.maxPerIdentity) {
        end(socket, CLOSE.tooManySockets, "Too many sockets");
      } else {
        guard(socket, () => handlers.open?.(socket, identity));
      }
    },
    message(socket, message) {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (typeof message !== "string") return end(socket, CLOSE.unsupportedData, "Text only");
      if (messages.waitMs(socket) > 0) return end(socket, CLOSE.flooding, "Too many messages");
      messages.count(socket);
      inTurn(socket, () => handlers.message(socket, socket.data.identity, message));
    },
    close(socket, code) {
      const { identity } = socket.data;
      const own = byIdentity.get(keyOf(identity));
      own?.delete(socket);
      if (own?.size === 0) byIdentity.delete(keyOf(identity));
      size--;
      log("info", "socket_closed", { ...who(identity), code });
      guard(socket, () => handlers.close?.(socket, identity));
    },
  };

  return {
    websocket,
    get size() {
      return size;
    },
    closeAll(code, reason) {
      for (const own of byIdentity.values()) for (const socket of own) socket.close(code, reason);
    },
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
