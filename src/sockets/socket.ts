import type { Connection } from "../gate/live.ts";
import { type Identity, identityFields, identityKey } from "../gate/identity.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Close } from "../wire/close.ts";

/** Time between two pings, in milliseconds; a peer that leaves two unanswered is disconnected at the third. */
export const BEAT_MS = 25_000;
/** How long before its end a socket gets notice, in milliseconds; half its life if that is shorter. */
const EXPIRY_NOTICE_MS = 30_000;

/** What a socket carries, as `socket.data`. */
export interface SocketData<Claims = unknown> {
  /** Whose it is. */
  readonly identity: Identity<Claims>;
  /** The parameters of the handshake's URL, without the ticket. */
  readonly parameters: URLSearchParams;
}

/** An open socket: Bun's own, with whose it is in `data`. */
export type Socket<Claims = unknown> = Bun.ServerWebSocket<SocketData<Claims>>;

/**
 * What to do with admitted sockets. Each call gets the socket and whose it is. A throw or a rejection closes
 * the socket with 1011.
 */
export interface SocketHandlers<Claims = unknown> {
  /**
   * Once, before the first socket. `publish` sends to every socket that has subscribed to a topic; `socketsOf` returns
   * the open sockets of an identity.
   */
  start?(
    publish: (topic: string, text: string) => void,
    socketsOf: (identity: Pick<Identity, "kind" | "id">) => readonly Socket<Claims>[],
  ): void;
  /** The socket is open. */
  open?(socket: Socket<Claims>, identity: Identity<Claims>): void | Promise<void>;
  /** One text message. The socket's next one waits until a returned promise is settled. */
  message(socket: Socket<Claims>, identity: Identity<Claims>, text: string): unknown;
  /**
   * Every 25 seconds: time to send something, for clients that give up on a silent connection. A browser doesn't
   * see the pings that the server sends anyway.
   */
  heartbeat?(socket: Socket<Claims>, identity: Identity<Claims>): void;
  /** The credential ends in `inSeconds`: time for the client to open its next socket with a new ticket. */
  expiring?(socket: Socket<Claims>, identity: Identity<Claims>, inSeconds: number): void;
  /** After the end of a socket that was passed to `open`. */
  close?(socket: Socket<Claims>, identity: Identity<Claims>): void;
  /** Once, after the last socket. */
  stop?(): Promise<void>;
}

/** The state of one socket: its `data`, and the connection that ends with the credential. */
export class SocketState implements SocketData, Connection {
  readonly identity: Identity;
  readonly key: string;
  readonly #search: string;
  readonly #log: Log;
  /** Tells the sockets of one server from those of another with the same gate. */
  readonly room: object;
  /** The key for limits per address. */
  readonly limitKey: string | undefined;
  /** Set as soon as it is open. */
  socket: Socket | undefined;
  /** Messages being handled, and the last of them: a socket's messages are handled one after the other. */
  pending = 0;
  last: Promise<void> | undefined;
  /** Monotonic clock, in milliseconds. */
  nextBeatMs: number;
  missedBeats = 0;
  /** Wall clock, in milliseconds; infinite once it had notice. */
  noticeAtMs: number;
  /** Whether the handlers know it. */
  isAnnounced = false;
  /** Whether the server has closed it. */
  isEnded = false;

  constructor(options: {
    identity: Identity;
    search: string;
    room: object;
    limitKey: string | undefined;
    clock: Clock;
    log: Log;
  }) {
    const { identity, clock } = options;
    this.identity = identity;
    this.key = identityKey(identity);
    this.#search = options.search;
    this.#log = options.log;
    this.room = options.room;
    this.limitKey = options.limitKey;
    const lifeMs = identity.expiresAtMs - clock.nowMs();
    this.noticeAtMs = identity.expiresAtMs - Math.min(EXPIRY_NOTICE_MS, lifeMs / 2);
    this.nextBeatMs = clock.monotonicMs() + BEAT_MS;
  }

  get parameters(): URLSearchParams {
    const parameters = new URLSearchParams(this.#search);
    parameters.delete("ticket");
    return parameters;
  }

  /** Whether its client knows that it expires soon. */
  get hadNotice(): boolean {
    return this.noticeAtMs === Number.POSITIVE_INFINITY;
  }

  /** Closes it, once. */
  end({ code, reason }: Close): void {
    if (this.isEnded || !this.socket) return;
    this.isEnded = true;
    this.#log("info", "socket_ended", { ...identityFields(this.identity), code });
    this.socket.close(code, reason);
  }
}

/** The state behind a socket that this module opened. */
export function stateOf(socket: Socket<never> | Socket): SocketState {
  return socket.data as unknown as SocketState;
}
