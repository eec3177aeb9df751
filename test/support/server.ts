import { createDeps, type Deps, type DepsOptions } from "../../src/gate/gate.ts";
import { createLog } from "../../src/lib/log.ts";
import { type RunningServer, serve, type ServeOptions } from "../../src/sockets/serve.ts";
import { createChat } from "../../src/chat/hub.ts";
import { sqliteChatLog } from "../../src/chat/sqlite.ts";
import { fakeClock, type FakeClock } from "./clock.ts";
import { type People, peopleOf, SESSION_SECRET, TOKEN_SECRET } from "./people.ts";

export { SESSION_SECRET, TOKEN_SECRET };

/** A server in this process, on a port of its own, with a clock that stands still and a log that is kept. */
export interface TestServer extends People, AsyncDisposable {
  readonly server: RunningServer;
  readonly deps: Deps;
  readonly clock: FakeClock;
  readonly port: number;
  /** `http://127.0.0.1:<port>`: the server's own origin, too. */
  readonly origin: string;
  /** Every log line so far. */
  readonly logLines: readonly string[];
}

export function startServer(
  options: Partial<DepsOptions> &
    Partial<Pick<ServeOptions, "handlers" | "socketLimits" | "pages" | "port">> = {},
): TestServer {
  const clock = (options.clock as FakeClock | undefined) ?? fakeClock();
  const logLines: string[] = [];
  const log = createLog({ level: "debug", clock, write: (line) => void logLines.push(line) });
  const chat = options.chat ?? sqliteChatLog({ path: ":memory:", clock });
  const deps = createDeps({
    chat,
    keys: { secret: TOKEN_SECRET },
    sessionSecret: SESSION_SECRET,
    clock,
    log,
    ticketsPerMinute: 0,
    ...options,
  });
  const { handlers = createChat(chat, deps), socketLimits, pages, port } = options;
  const server = serve({
    ...{ ...deps, handlers },
    ...(socketLimits && { socketLimits }),
    ...(pages && { pages }),
    ...(port && { port }),
  });
  const origin = server.url.origin;
  return {
    ...peopleOf(origin, { nowMs: clock.nowMs }),
    server,
    deps,
    clock,
    port: Number(server.url.port),
    origin,
    logLines,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
