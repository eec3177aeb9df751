import { createSecureServer, type ServerHttp2Stream } from "node:http2";
import {
  type AddressInfo,
  createConnection,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import type { TestCertificate } from "./certificate.ts";

/** A front that speaks HTTP/2, and passes HTTP/1.1 on as it is. */
export interface Http2Front extends AsyncDisposable {
  readonly port: number;
}

/**
 * Starts one before a server on loopback with the same certificate. `answer`: what a request over HTTP/2 gets,
 * from its path and its headers.
 */
export async function startHttp2Front(
  { port: behind, ...tls }: TestCertificate & { port: number },
  answer: (path: string, headers: Record<string, string>) => Promise<Response>,
): Promise<Http2Front> {
  const sockets = new Set<Socket>();
  const inner = createSecureServer(tls);
  inner.on("stream", (stream: ServerHttp2Stream, headers) => {
    const { ":path": path = "", authorization, origin } = headers as Record<string, string>;
    const sent = { ...(authorization && { authorization }), ...(origin && { origin }) };
    void answer(path, sent).then(async (response) => {
      stream.respond({ ":status": response.status });
      stream.end(await response.text());
    });
  });
  inner.on("error", () => {});
  await listen(inner as unknown as Server);

  // Who offers h2 says so in its first words.
  const outer = createServer((client) => {
    sockets.add(client);
    client.on("error", () => {});
    client.once("data", (hello) => {
      const offersHttp2 = Buffer.from(hello).includes("\u0002h2");
      const port = offersHttp2 ? portOf(inner as unknown as Server) : behind;
      const server = createConnection({ port, host: "127.0.0.1" });
      sockets.add(server);
      server.on("error", () => client.destroy());
      server.on("close", () => client.destroy());
      client.on("close", () => server.destroy());
      server.write(hello);
      client.pipe(server).pipe(client);
    });
  });
  await listen(outer);
  return {
    port: portOf(outer),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      outer.close();
      inner.close();
    },
  };
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve) => void server.listen(0, "127.0.0.1", resolve));
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
