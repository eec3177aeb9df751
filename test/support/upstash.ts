/** What the bridge does to requests while a fault is on. */
export type BridgeFault =
  /** Executes the command, then cuts the connection instead of answering. */
  | "lose-reply"
  /** Takes the request and never answers. */
  | "hang"
  /** Answers with this in place of a result, without executing anything. */
  | (() => Response);

/** Upstash's REST API in front of a Redis: what the real client talks to in tests. */
export interface UpstashBridge extends AsyncDisposable {
  readonly url: string;
  readonly token: string;
  /** Requests so far, by the name of their command. */
  readonly requests: readonly string[];
  fault: BridgeFault | undefined;
}

export async function startUpstashBridge(
  redisUrl: string,
  { port = 0, token = "bridge-token" }: { port?: number; token?: string } = {},
): Promise<UpstashBridge> {
  const redis = new Bun.RedisClient(redisUrl, { connectionTimeout: 1_000 });
  const requests: string[] = [];
  const bridge = { fault: undefined as BridgeFault | undefined };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port,
    development: false,
    idleTimeout: 30,
    async fetch(request, self) {
      if (request.headers.get("authorization") !== `Bearer ${token}`) {
        return Response.json({ error: "WRONGPASS invalid or missing auth token" }, { status: 401 });
      }
      if (request.method !== "POST") return Response.json({ error: "ERR method" }, { status: 405 });
      const [name = "", ...args] = ((await request.json()) as unknown[]).map(String);
      requests.push(name);
      if (typeof bridge.fault === "function") return bridge.fault();
      if (bridge.fault === "hang") return new Promise<Response>(() => {});
      const base64 = request.headers.get("upstash-encoding") === "base64";
      try {
        const result = toRest(await redis.send(name, args), base64);
        if (bridge.fault === "lose-reply") {
          self.timeout(request, 0);
          // Bun has no way to reset one connection; a body that breaks off is as good. With no reason, which
          // would be printed.
          const breakOff = (controller: ReadableStreamDefaultController) => {
            controller.enqueue(new Uint8Array([0x7b]));
            controller.error(undefined);
          };
          return new Response(new ReadableStream({ start: breakOff }));
        }
        return Response.json({ result });
      } catch (error) {
        return Response.json({ error: (error as Error).message }, { status: 400 });
      }
    },
    error: () => new Response(null, { status: 500 }),
  });
  return {
    url: server.url.origin,
    token,
    requests,
    get fault() {
      return bridge.fault;
    },
    set fault(fault) {
      bridge.fault = fault;
    },
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      redis.close();
    },
  };
}

/** A reply as Upstash writes it: RESP2's shapes, strings in base64 where the client asked for it. */
function toRest(reply: unknown, base64: boolean): unknown {
  if (reply === null || typeof reply === "number") return reply;
  if (typeof reply === "boolean") return reply ? 1 : 0;
  if (Array.isArray(reply)) return reply.map((item) => toRest(item, base64));
  if (typeof reply === "string")
    return base64 && reply !== "OK" ? Buffer.from(reply).toString("base64") : reply;
  return Object.entries(reply as object).flatMap(([key, value]) => [
    toRest(key, base64),
    toRest(value, base64),
  ]);
}
