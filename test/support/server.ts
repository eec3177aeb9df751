import { createChat } from "../../src/chat/chat.ts";
import type { ChatHistory } from "../../src/chat/history.ts";
import { sqliteChatHistory } from "../../src/chat/sqlite.ts";
import { createGate, type Gate, type GateParts, partsOf } from "../../src/gate/gate.ts";
import type { GateOptions } from "../../src/gate/gate-options.ts";
import type { TokenKeys } from "../../src/gate/token.ts";
import { createLog } from "../../src/lib/log.ts";
import type { Pages } from "../../src/page/pages.ts";
import { createServerRoutes } from "../../src/routes.ts";
import type { SocketLimits } from "../../src/sockets/limits.ts";
import { type RunningServer, serve } from "../../src/sockets/serve.ts";
import type { SocketHandlers } from "../../src/sockets/socket.ts";
import { fakeClock, type FakeClock, underClock } from "./clock.ts";
import { type People, peopleOf, SESSION_SECRET, TOKEN_SECRET } from "./people.ts";

export { SESSION_SECRET, TOKEN_SECRET };

/** A server in this process, on a port of its own, with a clock that stands still and a log that is kept. */
export interface TestServer extends People, AsyncDisposable {
  readonly server: RunningServer;
  readonly gate: Gate;
  readonly parts: GateParts;
  readonly clock: FakeClock;
  readonly port: number;
  /** `http://127.0.0.1:<port>`: the server's own origin, too. */
  readonly origin: string;
  /** Every log line so far. */
  readonly logLines: readonly string[];
}

export interface TestServerOptions extends Partial<Omit<GateOptions, "clock" | "visitors">> {
  /** In place of `users`: how bearer tokens are verified. */
  keys?: TokenKeys;
  issuer?: string;
  audience?: string;
  userClaim?: string;
  sessionSecret?: Uint8Array;
  /** Whether visitors may write in frames on other sites. */
  embedded?: boolean;
  clock?: FakeClock;
  history?: ChatHistory;
  /** 0 for a test that floods on purpose. */
  charactersPerMinute?: number;
  /** In place of the chat's. */
  handlers?: SocketHandlers;
  limits?: Partial<SocketLimits>;
  pages?: Pages;
  port?: number;
  adminToken?: string;
  signDemoToken?: (user: string) => Promise<string>;
}

export function startServer(options: TestServerOptions = {}): TestServer {
  const { clock = fakeClock(), keys = { secret: TOKEN_SECRET }, sessionSecret } = options;
  const { issuer, audience, userClaim, handlers, limits, pages, port, adminToken } = options;
  const logLines: string[] = [];
  const log = createLog({ level: "debug", clock, write: (line) => void logLines.push(line) });
  const gate = createGate({
    users: { ...keys, issuer, audience, userClaim },
    visitors: { secret: sessionSecret ?? SESSION_SECRET, embedded: options.embedded },
    userSessions:
      typeof options.users === "function" ? undefined : { secret: sessionSecret ?? SESSION_SECRET },
    log,
    ticketsPerMinute: 0,
    ...options,
    clock,
  });
  const history = options.history ?? sqliteChatHistory({ path: ":memory:", clock });
  const chat = createChat(gate, history, { charactersPerMinute: options.charactersPerMinute });
  const server: RunningServer = serve(gate, handlers ?? chat.handlers, {
    limits,
    port,
    fetch: createServerRoutes({
      ...{ gate, chat, pages, adminToken },
      signDemoToken: options.signDemoToken,
      isStopping: () => server.isStopping,
    }),
  });
  const origin = server.url.origin;
  return {
    ...peopleOf(origin, { nowMs: clock.nowMs }),
    server,
    gate,
    parts: partsOf(gate),
    clock,
    port: Number(server.url.port),
    origin,
    logLines,
    async [Symbol.asyncDispose]() {
      await underClock(clock, server.stop());
      if (handlers) await history.close();
      await gate.close();
    },
  };
}
