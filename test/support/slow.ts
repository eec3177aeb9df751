/**
 * A server of its own: what is sent to `/slow` has its response once somebody asks for `/go`; `/connect?PORT` opens a
 * connection to that port, and `/long` has a response that no buffer holds.
 */
import { createGate } from "../../src/gate/gate.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { createLog } from "../../src/lib/log.ts";
import { serve } from "../../src/sockets/serve.ts";
import { TOKEN_SECRET } from "./people.ts";

const log = createLog({
  level: "warn",
  clock: systemClock,
  write: (line) => process.stdout.write(line),
});
const long = new Uint8Array(32 * 1024 * 1024);
const go = Promise.withResolvers<void>();
const gate = createGate({
  ...{ users: { secret: TOKEN_SECRET }, ticketsPerMinute: 0, trustProxy: 1, log },
});
const server = serve(
  gate,
  { message: (socket, _, text) => void socket.send(JSON.stringify({ echo: text })) },
  {
    hostname: process.env.HOST || "127.0.0.1",
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      if (pathname === "/go") go.resolve();
      if (pathname === "/slow") await go.promise;
      if (pathname === "/long") return new Response(long);
      if (pathname === "/connect") {
        const port = Number(search.slice(1));
        await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
      }
      return new Response(await request.text());
    },
  },
);
log("warn", "listening", { url: server.url.href });
