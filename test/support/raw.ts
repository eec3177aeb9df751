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

/** Sends bytes over a connection of its own and reads one answer. Rejects when none comes within 15 s. */
export async function sendRaw(port: number, request: string | Uint8Array): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const decoder = new TextDecoder("latin1");
  let text = "";
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(_, chunk) {
        text += decoder.decode(chunk, { stream: true });
        if (isWhole(text)) resolve(text);
      },
      close: () => resolve(text),
      error: (_, error) => reject(error),
    },
  });
  const timer = setTimeout(() => reject(new Error(`No answer: ${text.slice(0, 80)}`)), 15_000);
  try {
    socket.write(typeof request === "string" ? Buffer.from(request, "latin1") : request);
    return parseAnswer(await promise);
  } finally {
    clearTimeout(timer);
    socket.end();
  }
}

function isWhole(text: string): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const { status, headers, body } = parseAnswer(text);
  if (status === 101 || status === 204) return true;
  const length = headers.get("content-length");
  return length !== null && body.length >= Number(length);
}

function parseAnswer(text: string): RawAnswer {
  const [head = "", body = ""] = splitOnce(text, "\r\n\r\n");
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
