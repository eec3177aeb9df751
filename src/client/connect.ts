import { BASE_PATH, SOCKET_PATH, TICKET_PATH, VISITOR_PATH } from "../wire/paths.ts";
import { addressOf } from "./address.ts";
import { type Connection, keepSocket } from "./connection.ts";
import { Failure } from "./failure.ts";
import { request } from "./request.ts";
import { completeRuntime, type Runtime } from "./runtime.ts";

/**
 * A user's JWT, or what gives the current one when asked: `undefined` where a cookie of yours tells the server who
 * the user is.
 */
export type TokenSource = string | (() => string | undefined | Promise<string | undefined>);

/** Where the server's routes are, below its URL, or at URLs of their own. */
export interface Paths {
  /** The `basePath` of its gate. Default `/api/auth`. */
  readonly auth?: string | undefined;
  /** Where sockets are opened. Default `/ws/chat`. */
  readonly socket?: string | undefined;
}

/** How to reach the server, and as whom. */
export interface ConnectOptions {
  /** Where the server is; a path in it stands before all others. Default: where the page comes from. */
  readonly url?: string | URL | undefined;
  /** A user's JWT; a function is called before every attempt. */
  readonly getToken?: TokenSource | undefined;
  /**
   * A ticket from a way of your own, in place of `getToken`; called before every attempt. Throw a `Failure`
   * with the code 401 when there is none to be had any more. Without either: a visitor, known by the cookie.
   */
  readonly getTicket?:
    ((attempt: { readonly signal: AbortSignal }) => string | Promise<string>) | undefined;
  /** Where the server's routes are. */
  readonly paths?: Paths | undefined;
  /** Subprotocols to offer. The server has to choose one of them, or browsers end the handshake. */
  readonly protocols?: string | readonly string[] | undefined;
  /**
   * A socket over which nothing comes for so long counts as lost (4002), in milliseconds, by a clock that never
   * jumps. For servers that send something more often, such as in `heartbeat` of their handlers. Default 0: never.
   */
  readonly silenceMs?: number | undefined;
  /** What to use in place of the browser's own. */
  readonly runtime?: Partial<Runtime> | undefined;
}

/**
 * Connects a user (with `getToken` or `getTicket`) or a visitor (with neither) for a protocol of your own. Gets
 * a new ticket, or the cookie, before every attempt. Throws a `TypeError` for options that can't be used.
 *
 * @example
 * const connection = connect({ getToken: () => session.jwt, paths: { socket: "/live" } });
 * connection.on("message", (text) => console.log(text));
 * connection.on("open", () => connection.send("hello"));
 */
export function connect(options: ConnectOptions = {}): Connection {
  const { getToken, getTicket, paths = {}, protocols, silenceMs = 0 } = options;
  const { auth = BASE_PATH, socket = SOCKET_PATH } = paths;
  const runtime = completeRuntime(options.runtime);
  const at = addressOf(options.url);
  let token: string | undefined;

  function post(path: string, signal: AbortSignal): Promise<Response> {
    return request(runtime, { method: "POST", url: at(auth + path), signal, token });
  }

  async function ticketFor(signal: AbortSignal, renewing: boolean): Promise<unknown> {
    if (getTicket) return getTicket({ signal });
    const next = await (typeof getToken === "function" ? getToken() : getToken);
    if (signal.aborted) throw signal.reason;
    if (renewing && next === token) throw new Failure(0, "token_unchanged");
    token = next;
    return ((await (await post(TICKET_PATH, signal)).json()) as { ticket?: unknown }).ticket;
  }

  return keepSocket({
    runtime,
    protocols,
    silenceMs,
    async getUrl(signal, renewing) {
      const url = at(socket);
      url.protocol = url.protocol.replace("http", "ws");
      if (getToken === undefined && !getTicket) {
        if (!runtime.keepsCookies) throw new Failure(0, "no_cookies");
        await post(VISITOR_PATH, signal);
        return url.href;
      }
      const ticket = await ticketFor(signal, renewing);
      if (typeof ticket !== "string") throw new Failure(0, "no_ticket");
      url.searchParams.set("ticket", ticket);
      return url.href;
    },
  });
}
