import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";

/** What happens to one command on its way to Redis. */
export type ProxyFault =
  /** The connection is reset; Redis never sees the command. */
  | "reset-before"
  /** The connection is reset in the middle of the command. */
  | "reset-during"
  /** Redis executes the command; the connection is reset in place of its reply. */
  | "reset-after"
  /** Redis executes the command; the connection stays, and nothing comes back over it any more. */
  | "drop-reply";

/** A TCP proxy in front of a Redis that reads the commands (RESP) passing through, and fails on demand. */
export interface TestProxy extends AsyncDisposable {
  readonly url: string;
  /** Every command that clients have sent, word by word. */
  readonly commands: readonly (readonly string[])[];
  /** Commands of this name so far. */
  count(name: string): number;
  /** From now on, what happens to commands of this name; `undefined` heals. */
  fault: { readonly command: string; readonly kind: ProxyFault } | undefined;
  /** Resets every connection; new ones are welcome. */
  cut(): void;
  /** Holds everything back in both directions, new connections' first words included, until `thaw`. */
  freeze(): void;
  thaw(): void;
}

export async function startProxy(redis: {
  readonly port: number;
  readonly url: string;
}): Promise<TestProxy> {
  const commands: string[][] = [];
  const pairs = new Set<readonly [client: Socket, upstream: Socket]>();
  let held: (() => void)[] | undefined;
  let fault: TestProxy["fault"];

  /** Now, or when the proxy thaws. */
  function pass(run: () => void): void {
    if (held) held.push(run);
    else run();
  }

  const server = createServer((client) => {
    const upstream = createConnection({ port: redis.port, host: "127.0.0.1" });
    const pair = [client, upstream] as const;
    let unread = Buffer.alloc(0);
    let deaf = false;
    let resetAtReply = false;
    pairs.add(pair);

    function end(): void {
      pairs.delete(pair);
      client.resetAndDestroy();
      upstream.destroy();
    }

    function forward(bytes: Buffer, name: string): void {
      const kind = fault?.command === name ? fault.kind : undefined;
      if (kind === "reset-before") return end();
      if (kind === "reset-during") {
        upstream.write(bytes.subarray(0, bytes.length - 5), end);
        return;
      }
      if (kind === "reset-after") resetAtReply = true;
      if (kind === "drop-reply") deaf = true;
      upstream.write(bytes);
    }

    client.on("data", (chunk) => {
      unread = Buffer.concat([unread, chunk as Buffer]);
      for (let read = readCommand(unread); read; read = readCommand(unread)) {
        const { words, length } = read;
        const bytes = unread.subarray(0, length);
        unread = unread.subarray(length);
        const name = words[0]?.toUpperCase() ?? "";
        commands.push([name, ...words.slice(1)]);
        pass(() => forward(bytes, name));
      }
    });
    upstream.on("data", (chunk) =>
      pass(() => {
        if (resetAtReply) end();
        else if (!deaf) client.write(chunk);
      }),
    );
    client.on("close", () => pass(end)).on("error", () => {});
    upstream.on("close", () => pass(end)).on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;

  function cut(): void {
    for (const [client, upstream] of pairs) {
      client.resetAndDestroy();
      upstream.destroy();
    }
    pairs.clear();
  }

  return {
    url: redis.url.replace(/:\d+$/, `:${port}`),
    commands,
    count: (name) => commands.filter(([word]) => word === name).length,
    get fault() {
      return fault;
    },
    set fault(next) {
      fault = next;
    },
    cut,
    freeze() {
      held ??= [];
    },
    thaw() {
      const waiting = held ?? [];
      held = undefined;
      for (const run of waiting) run();
    },
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The first whole command in `bytes`: a RESP array of bulk strings. */
function readCommand(bytes: Buffer): { words: string[]; length: number } | undefined {
  let at = 0;
  function readCount(): number | undefined {
    const end = bytes.indexOf("\r\n", at);
    if (end < 0) return undefined;
    const count = Number(bytes.toString("latin1", at + 1, end));
    at = end + 2;
    return count;
  }
  const words: string[] = [];
  const size = readCount();
  if (size === undefined) return undefined;
  while (words.length < size) {
    const length = readCount();
    if (length === undefined || at + length + 2 > bytes.length) return undefined;
    words.push(bytes.toString("utf8", at, at + length));
    at += length + 2;
  }
  return { words, length: at };
}
