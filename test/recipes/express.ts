import { createServer, type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import express from "express";
import { WebSocketServer } from "ws";
import { createGate, refusalResponse } from "ws-ticket";

const gate = createGate({ users: { secret: process.env.JWT_SECRET! } });

/** Node's request as a web standard one. Throws for a `Host` that makes no URL. */
function toRequest(incoming: IncomingMessage): Request {
  const { method = "GET", rawHeaders, headers } = incoming;
  const url = (incoming as { originalUrl?: string }).originalUrl ?? incoming.url;
  const pairs = rawHeaders.flatMap((name, at): [string, string][] =>
    at % 2 === 0 ? [[name, rawHeaders[at + 1] ?? ""]] : [],
  );
  const hasBody = method !== "GET" && method !== "HEAD";
  const body = hasBody ? { body: Readable.toWeb(incoming), duplex: "half" } : {};
  const init = { method, headers: pairs, ...body } as RequestInit;
  return new Request(`http://${headers.host}${url}`, init);
}

async function respond(to: ServerResponse, response: Response): Promise<void> {
  to.statusCode = response.status;
  to.setHeaders(response.headers);
  to.end(await response.text());
}

const app = express();
// Before any body parser: the gate reads the body by itself.
app.use(gate.basePath, async (request, response) => {
  const { remoteAddress: socketAddress } = request.socket;
  await respond(response, await gate.fetch(toRequest(request), { socketAddress }));
});
app.get("/", (_, response) => void response.send("Your app"));

const server = createServer(app);
const sockets = new WebSocketServer({ noServer: true, path: "/live", maxPayload: 16_384 });

async function upgrade(incoming: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
  const { remoteAddress: socketAddress } = socket;
  const admitted = await gate.admit(toRequest(incoming), { socketAddress });
  if (!admitted.ok) {
    const response = new ServerResponse(incoming);
    response.shouldKeepAlive = false;
    response.assignSocket(socket);
    response.on("finish", () => socket.end());
    return respond(response, refusalResponse(admitted));
  }
  sockets.handleUpgrade(incoming, socket, head, (webSocket) => {
    const { identity } = admitted;
    const unfollow = gate.follow(identity, ({ code, reason }) => webSocket.close(code, reason));
    webSocket.on("close", unfollow);
    webSocket.on("error", () => webSocket.terminate());
    webSocket.on("message", (data) =>
      webSocket.send(JSON.stringify({ from: identity.id, text: String(data) })),
    );
  });
}

server.on("upgrade", (incoming, socket: Socket, head) => {
  // Unheard, either would end the process.
  socket.on("error", () => socket.destroy());
  upgrade(incoming, socket, head).catch(() => socket.destroy());
});
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  const address = server.address() as { port: number };
  console.log(`Listening on http://127.0.0.1:${address.port}/`);
});
