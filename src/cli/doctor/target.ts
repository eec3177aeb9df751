import { type Clock, pause } from "../../lib/clock.ts";
import { Skipped } from "./finding.ts";
import { openSocket, type OpenSocket } from "./socket.ts";
import {
  connect,
  type Connection,
  type Endpoint,
  readResponse,
  type WireResponse,
} from "./wire.ts";

/** Requests at most, handshakes among them. */
export const MAX_REQUESTS = 200;
/** Longest wait for a connection or a response, in milliseconds. */
const DEADLINE_MS = 10_000;
/** Longest wait that a 429 may ask for, in seconds; it is waited for once. */
const MAX_RETRY_SECONDS = 65;
/** Longest text of a request or response that a finding shows, in characters. */
const MAX_SHOWN = 400;

/** What is examined, and how to get in. */
export interface TargetOptions {
  /** Where it is; what its path has before the paths below. */
  readonly url: URL;
  /** A JWT that the server accepts. Without it most checks are skipped. */
  readonly token?: string | undefined;
  readonly ticketPath: string;
  readonly socketPath: string;
  /** Where a visitor's cookie is issued. */
  readonly sessionPath: string;
  /** Where the ticket is in the response (RFC 6901). */
  readonly pointer: string;
  /** The parameter that the handshake has it in. */
  readonly parameter: string;
  /** The origin whose pages may connect. */
  readonly origin: string;
  /** How many instances are behind the name: each may count for itself. Default: 1. */
  readonly instances?: number | undefined;
  /** Authorities that are trusted beside the system's, as PEM. */
  readonly ca?: string | undefined;
  readonly clock: Clock;
  /** All addresses of a host. Default: the system's answer. */
  readonly resolve?: ((hostname: string) => Promise<readonly string[]>) | undefined;
  /** Called for what takes long. */
  readonly onWait?: ((reason: string) => void) | undefined;
}

/** A request, as far as it differs from the usual one. A header that is `null` is left out. */
export interface Ask {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | null>>;
  readonly body?: string;
  /** One of the host's addresses. */
  readonly address?: string;
}

/** A response with the request that it is for, both as a finding shows them. */
export interface Exchange extends WireResponse {
  readonly sent: string;
  readonly received: string;
}

/** A handshake: what it came to, and the socket where it was accepted. */
export interface Handshake extends Exchange {
  readonly socket: OpenSocket | undefined;
}

/** The requests are used up. */
export class Exhausted extends Skipped {
  override name = "Exhausted";
}

/** The deployment that is examined: sends requests, counts them, and shows them without their secrets. */
export class Target {
  readonly options: TargetOptions;
  /** What the first ticket came in. */
  minted: Exchange | undefined;
  /** Whether sockets open without any credential. */
  isOpenToAll = false;
  /** Whether a handshake that was refused for its origin spends the ticket. */
  spendsRefused = false;
  /** Requests that were sent. */
  requests = 0;
  #session: Promise<Exchange> | undefined;
  #visitor: Promise<string> | undefined;
  readonly #secrets = new Map<string, string>();
  readonly #endpoint: Endpoint;
  #hasWaited = false;

  constructor(options: TargetOptions) {
    this.options = options;
    const { url, ca, clock, token } = options;
    const isEncrypted = url.protocol === "https:";
    const port = Number(url.port || (isEncrypted ? 443 : 80));
    this.#endpoint = { hostname: url.hostname, port, isEncrypted, ca, clock };
    if (token !== undefined) this.hide(token, "token");
  }

  get token(): string {
    const { token } = this.options;
    if (token === undefined) throw new Skipped("needs a token: --token-file");
    return token;
  }

  get isEncrypted(): boolean {
    return this.#endpoint.isEncrypted;
  }

  /** Shows `<name>` from now on wherever this secret would be. */
  hide(secret: string, name: string): void {
    if (secret.length < 8) return;
    for (const spelling of [secret, encodeURIComponent(secret)]) {
      this.#secrets.set(spelling, `<${name}>`);
    }
  }

  /** A text for a report: without secrets and control characters, and not too long. */
  show(text: string): string {
    let shown = text;
    for (const [secret, name] of this.#secrets) shown = shown.replaceAll(secret, name);
    shown = shown.replaceAll(/[^\P{Cc}\n]/gu, "");
    return shown.length > MAX_SHOWN ? `${shown.slice(0, MAX_SHOWN)}…` : shown;
  }

  /** A path of the options, below the URL's own. */
  path(path: string): string {
    return this.options.url.pathname.replace(/\/$/, "") + path;
  }

  /** Sends one request over a connection of its own. */
  async send(path: string, ask: Ask = {}): Promise<Exchange> {
    const { method = "GET", body, address } = ask;
    const lines = this.#lines({
      "User-Agent": "ws-ticket-doctor",
      Accept: "*/*",
      Connection: "close",
      ...((body !== undefined || method === "POST") && {
        "Content-Length": String(body?.length ?? 0),
      }),
      ...ask.headers,
    });
    const request = `${method} ${path} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n${body ?? ""}`;
    using connection = await this.#connect(address);
    connection.write(request);
    const response = await this.#read(connection, method !== "HEAD");
    return this.#exchange(method, path, ask.headers, body, response);
  }

  /** Asks for a ticket, with the token unless `ask` says otherwise. */
  askTicket(ask: Ask = {}): Promise<Exchange> {
    const { ticketPath, origin } = this.options;
    return this.send(this.path(ticketPath), {
      method: "POST",
      ...ask,
      headers: { Authorization: `Bearer ${this.token}`, Origin: origin, ...ask.headers },
    });
  }

  /** A fresh ticket. */
  async ticket(): Promise<string> {
    let exchange = await this.askTicket();
    const retrySeconds = Number(exchange.header("retry-after")[0]);
    if (exchange.status === 429 && !this.#hasWaited && retrySeconds <= MAX_RETRY_SECONDS) {
      this.#hasWaited = true;
      this.options.onWait?.(`limited: goes on in ${retrySeconds} s`);
      await pause((retrySeconds + 1) * 1000, this.options.clock);
      exchange = await this.askTicket();
    }
    const ticket = this.ticketIn(exchange);
    if (ticket === undefined) throw new Skipped(`no further ticket was issued: ${exchange.status}`);
    this.minted ??= exchange;
    return ticket;
  }

  /** The ticket in a response that has one. */
  ticketIn({ status, body }: WireResponse): string | undefined {
    if (status < 200 || status > 299) return undefined;
    const ticket = valueAt(body, this.options.pointer);
    if (typeof ticket !== "string" || ticket === "") return undefined;
    this.hide(ticket, "ticket");
    return ticket;
  }

  /** Shakes hands: with a query of one's own, or with a ticket, from a page of the right origin unless `headers` say otherwise. */
  async open(
    query: string | { readonly ticket: string },
    headers: Readonly<Record<string, string | null>> = {},
  ): Promise<Handshake> {
    using opening = await this.prepare(query, headers);
    return await opening.finish();
  }

  /** A handshake whose connection is there already, and which is sent with `finish`. */
  async prepare(
    query: string | { readonly ticket: string },
    headers: Readonly<Record<string, string | null>> = {},
  ): Promise<{ finish(): Promise<Handshake> } & Disposable> {
    const { socketPath, parameter, origin } = this.options;
    const text =
      typeof query === "string" ? query : `${parameter}=${encodeURIComponent(query.ticket)}`;
    const path = this.path(socketPath) + (text && `?${text}`);
    const own = {
      "User-Agent": "ws-ticket-doctor",
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": crypto.getRandomValues(new Uint8Array(16)).toBase64(),
      Origin: origin,
      ...headers,
    };
    const connection = await this.#connect();
    let isKept = false;
    return {
      finish: async () => {
        connection.write(`GET ${path} HTTP/1.1\r\n${this.#lines(own).join("\r\n")}\r\n\r\n`);
        const response = await this.#read(connection, true);
        isKept = response.status === 101;
        const shown = { Origin: origin, ...headers };
        const exchange = this.#exchange("GET", path, shown, undefined, response);
        return { ...exchange, socket: isKept ? openSocket(connection, response) : undefined };
      },
      [Symbol.dispose]: () => {
        if (!isKept) connection[Symbol.dispose]();
      },
    };
  }

  /** A handshake that is over as soon as it is answered. */
  async knock(
    query: string | { readonly ticket: string },
    headers?: Readonly<Record<string, string | null>>,
  ): Promise<Handshake> {
    const handshake = await this.open(query, headers);
    handshake.socket?.[Symbol.dispose]();
    return handshake;
  }

  /** The response that sets a visitor's cookie. */
  session(): Promise<Exchange> {
    return (this.#session ??= this.#askSession());
  }

  /** The `Cookie` header of a visitor who gets in with it. */
  visitor(): Promise<string> {
    return (this.#visitor ??= this.#tryCookie());
  }

  async #askSession(): Promise<Exchange> {
    const { sessionPath, origin } = this.options;
    const headers = { Origin: origin };
    const exchange = await this.send(this.path(sessionPath), { method: "POST", headers });
    const cookies = exchange.header("set-cookie");
    if (cookies.length === 0) throw new Skipped(`${sessionPath} sets no cookie: --session-path`);
    for (const cookie of cookies) this.hide(valueOf(cookie), "cookie");
    return exchange;
  }

  async #tryCookie(): Promise<string> {
    if (this.isOpenToAll) throw new Skipped("no credential is needed");
    const { header } = await this.session();
    const cookie = header("set-cookie").map(pairOf).join("; ");
    const { status } = await this.knock("", { Cookie: cookie });
    if (status !== 101) throw new Skipped("no cookie opens a socket");
    return cookie;
  }

  /** Counts one more request. Throws where that would be too many. */
  count(): void {
    if (this.requests >= MAX_REQUESTS) throw new Exhausted("no requests are left");
    this.requests++;
  }

  async #connect(address?: string): Promise<Connection> {
    this.count();
    return connect({ ...this.#endpoint, address }, DEADLINE_MS);
  }

  async #read(connection: Connection, hasBody: boolean): Promise<WireResponse> {
    let response: WireResponse | undefined;
    const look = () => {
      response ??= readResponse(connection.received, { isClosed: connection.isClosed, hasBody });
      return response !== undefined;
    };
    await connection.until(look, DEADLINE_MS);
    return response ?? { status: 0, header: () => [], body: "", head: "", headLength: 0 };
  }

  #lines(headers: Readonly<Record<string, string | null>>): string[] {
    return Object.entries({ Host: this.options.url.host, ...headers }).flatMap(([name, value]) =>
      value === null ? [] : `${name}: ${value}`,
    );
  }

  #exchange(
    method: string,
    path: string,
    headers: Ask["headers"],
    body: string | undefined,
    response: WireResponse,
  ): Exchange {
    const shown = Object.entries(headers ?? {}).map(([name, value]) =>
      value === null ? `(no ${name})` : `${name}: ${value}`,
    );
    const sent = [`${method} ${path}`, ...shown, ...(body ? [body] : [])].join("\n");
    const received = response.status === 0 ? "no response" : `${response.head.split("\r\n")[0]}`;
    return { ...response, sent: this.show(sent), received: this.show(received) };
  }
}

/** Name and value of a `Set-Cookie` header. */
export function pairOf(cookie: string): string {
  return cookie.split(";")[0] as string;
}

/** The value alone. */
export function valueOf(cookie: string): string {
  return pairOf(cookie).replace(/^[^=]*=/, "");
}

/** The value at a JSON pointer (RFC 6901); `undefined` where there is none. */
export function valueAt(json: string, pointer: string): unknown {
  try {
    let value: unknown = JSON.parse(json);
    for (const part of pointer.split("/").slice(1)) {
      const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, name))
        return undefined;
      value = (value as Record<string, unknown>)[name];
    }
    return value;
  } catch {
    return undefined;
  }
}
