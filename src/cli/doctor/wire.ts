import { isIP } from "node:net";
import { type Clock, pause } from "../../lib/clock.ts";

/** Longest response that is kept, in bytes. */
const MAX_RESPONSE_BYTES = 256 * 1024;

/** Where to connect to. */
export interface Endpoint {
  readonly hostname: string;
  readonly port: number;
  readonly isEncrypted: boolean;
  /** One address of the host's, in place of whichever the system picks. */
  readonly address?: string | undefined;
  /** Authorities that are trusted beside the system's, as PEM. */
  readonly ca?: string | undefined;
  readonly clock: Clock;
}

/** A connection on which anything can be sent. */
export interface Connection extends Disposable {
  /** All that has come so far. */
  readonly received: Buffer;
  readonly isClosed: boolean;
  write(bytes: string | Uint8Array): void;
  /** Calls `onData` whenever something has come, and once when the connection closes. */
  onData: (() => void) | undefined;
  /** Resolves as soon as `isThere`; to `false` when the connection closes or the time is over before that. */
  until(isThere: () => boolean, withinMs: number): Promise<boolean>;
}

/** Connects, over TLS with a certificate that is verified. Rejects with the system's error. */
export async function connect(endpoint: Endpoint, withinMs: number): Promise<Connection> {
  const { hostname, port, isEncrypted, address, ca, clock } = endpoint;
  const opened = Promise.withResolvers<void>();
  const waiting = new Set<() => void>();
  let chunks: Buffer[] = [];
  let size = 0;
  let isClosed = false;

  function wake(): void {
    connection.onData?.();
    for (const look of waiting) look();
  }

  function close(): void {
    isClosed = true;
    opened.reject(Object.assign(new Error("Connection closed"), { code: "ECONNRESET" }));
    wake();
  }

  const connection: Connection = {
    get received() {
      if (chunks.length > 1) chunks = [Buffer.concat(chunks)];
      return chunks[0] ?? Buffer.alloc(0);
    },
    get isClosed() {
      return isClosed;
    },
    onData: undefined,
    write: (bytes) =>
      void socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes),
    async until(isThere, withinMs) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = () => void ((isClosed || isThere()) && resolve());
      waiting.add(look);
      look();
      const timer = new AbortController();
      await Promise.race([promise, pause(withinMs, clock, timer.signal)]);
      timer.abort();
      waiting.delete(look);
      return isThere();
    },
    [Symbol.dispose]() {
      socket.end();
      // A peer that never closes its half must not keep the process alive.
      socket.unref();
    },
  };

  const timer = new AbortController();
  void pause(withinMs, clock, timer.signal).then(() =>
    opened.reject(Object.assign(new Error("No connection in time"), { code: "ETIMEDOUT" })),
  );
  const bare = hostname.replace(/^\[|\]$/g, "");
  const connecting = Bun.connect({
    hostname: address ?? bare,
    port,
    ...(isEncrypted && {
      // An address is no name that could be asked for (RFC 6066 section 3).
      tls: {
        rejectUnauthorized: true,
        ...(!isIP(bare) && { serverName: hostname }),
        ...(ca && { ca }),
      },
    }),
    socket: {
      open: () => void (isEncrypted || opened.resolve()),
      handshake: (_, isTrusted, error) =>
        isTrusted ? opened.resolve() : opened.reject(error ?? new Error("No TLS")),
      data(_, bytes) {
        size += bytes.length;
        if (size > MAX_RESPONSE_BYTES) return;
        chunks.push(Buffer.from(bytes));
        wake();
      },
      close,
      error: (_, error) => opened.reject(error),
      connectError: (_, error) => opened.reject(error),
    },
  });
  connecting.catch((error) => opened.reject(error));
  try {
    await opened.promise;
  } catch (error) {
    connecting.then(
      (failed) => failed.terminate(),
      () => {},
    );
    throw error;
  } finally {
    timer.abort();
  }
  const socket = await connecting;
  return connection;
}

/** A response as it stood on the wire. */
export interface WireResponse {
  readonly status: number;
  /** All values of a header, in order. */
  header(name: string): readonly string[];
  readonly body: string;
  /** The first line and all headers. */
  readonly head: string;
  /** Where the body starts, in bytes. */
  readonly headLength: number;
}

/** The response at the start of `bytes`; `undefined` while it isn't whole. `isClosed`: nothing more will come. */
export function readResponse(
  bytes: Buffer,
  { isClosed, hasBody }: { isClosed: boolean; hasBody: boolean },
): WireResponse | undefined {
  const text = bytes.toString("latin1");
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const head = text.slice(0, end);
  const [first = "", ...lines] = head.split("\r\n");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1] ?? 0);
  const headLength = end + 4;
  const header = (name: string) =>
    lines.flatMap((line) => {
      const at = line.indexOf(":");
      return line.slice(0, at).toLowerCase() === name ? [line.slice(at + 1).trim()] : [];
    });
  const rest = text.slice(headLength);
  const response = (body: string) => ({ status, header, body, head, headLength });
  if (!hasBody || status === 101 || status === 204 || status === 304) return response("");
  if (header("transfer-encoding").some((value) => /chunked/i.test(value))) {
    const body = readChunks(rest);
    return body === undefined && !isClosed ? undefined : response(body ?? rest);
  }
  const length = header("content-length")[0];
  if (length === undefined) return isClosed ? response(rest) : undefined;
  return rest.length >= Number(length) || isClosed
    ? response(rest.slice(0, Number(length)))
    : undefined;
}

/** A chunked body (RFC 9112 section 7.1); `undefined` while it isn't whole. */
function readChunks(text: string): string | undefined {
  let body = "";
  for (let at = 0; ;) {
    const end = text.indexOf("\r\n", at);
    if (end < 0) return undefined;
    const size = Number.parseInt(text.slice(at, end), 16);
    if (!Number.isInteger(size)) return undefined;
    if (size === 0) return body;
    body += text.slice(end + 2, end + 2 + size);
    at = end + 2 + size + 2;
    if (at > text.length) return undefined;
  }
}
