/** An HTTP answer as it stood on the wire. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
  /** Everything received until the connection closed or one whole answer was there. */
  readonly text: string;
}

/** The key and the answer of RFC 6455's own example. */
export const HANDSHAKE: Readonly<Record<string, string>> = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** An opening handshake line by line. A header that is `null` is left out, one that is a list stands several times. */
export function handshake(
  target: string,
  headers: Record<string, string | readonly string[] | null> = {},
  { method = "GET", version = "HTTP/1.1", host = "127.0.0.1", body = "" } = {},
): string {
  const all = { Host: host, ...HANDSHAKE, ...headers };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    value === null ? [] : [value].flat().map((one) => `${name}: ${one}`),
  );
  return `${method} ${target} ${version}\r\n${lines.join("\r\n")}\r\n\r\n${body}`;
}

/** A connection of one's own, for what one request and one answer can't show. */
export interface RawConnection extends Disposable {
  /** Everything received so far. */
  readonly text: string;
  /** Resolves with everything received, once the connection has closed. */
  readonly closed: Promise<string>;
  /** Resolves when what was received is as wanted, or when the connection has closed. */
  until(wanted: (text: string) => boolean): Promise<void>;
  write(bytes: string | Uint8Array): void;
  /** Goes away like a closed tab; resolves when the server has noticed. */
  leave(): Promise<void>;
}

export async function openRaw(port: number): Promise<RawConnection> {
  const closed = Promise.withResolvers<string>();
  const decoder = new TextDecoder("latin1");
  const waiting = new Set<() => void>();
  let text = "";
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        text += decoder.decode(chunk, { stream: true });
        for (const look of waiting) look();
      },
      close: () => closed.resolve(text),
      error: (_, error) => closed.reject(error),
    },
  });
  return {
    get text() {
      return text;
    },
    closed: closed.promise,
    async until(wanted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = () => void (wanted(text) && resolve());
      waiting.add(look);
      look();
      await Promise.race([promise, closed.promise]);
      waiting.delete(look);
    },
    write: (bytes) =>
      void socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes),
    async leave() {
      socket.shutdown();
      await closed.promise;
    },
    [Symbol.dispose]: () => void socket.end(),
  };
}

/** Sends bytes over a connection of its own and reads one answer. Rejects when none comes within 15 s. */
export async function sendRaw(port: number, request: string | Uint8Array): Promise<RawAnswer> {
  using connection = await openRaw(port);
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Error(`No answer: ${connection.text.slice(0, 80)}`)),
    15_000,
  );
  try {
    connection.write(request);
    const bodiless = request.slice(0, 5) === "HEAD ";
    await Promise.race([connection.until((text) => isWhole(text, bodiless)), promise]);
    return parseAnswer(connection.text);
  } finally {
    clearTimeout(timer);
  }
}

function isWhole(text: string, bodiless = false): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const { status, headers, body } = parseAnswer(text);
  if (status === 101 || status === 204 || (bodiless && status > 0)) return true;
  const length = headers.get("content-length");
  return length !== null && body.length >= Number(length);
}

function parseAnswer(text: string): RawAnswer {
  const [, final = ""] = /^(?:HTTP\/1\.1 100 [^\r]*\r\n\r\n)?([^]*)$/.exec(text) ?? [];
  const [head = "", body = ""] = splitOnce(final, "\r\n\r\n");
  const [statusLine = "", ...lines] = head.split("\r\n");
  const headers = new Headers();
  for (const line of lines) {
    const [name, value = ""] = splitOnce(line, ":");
    headers.append(name as string, value.trim());
  }
  return { status: Number(statusLine.split(" ")[1] ?? 0), headers, body, text };
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
