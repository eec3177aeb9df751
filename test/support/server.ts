import { createDeps, type Deps, type DepsOptions } from "../../src/deps.ts";
import { createLog } from "../../src/log.ts";
import { type RunningServer, serve, type ServeOptions } from "../../src/server.ts";
import { signToken } from "../../src/token.ts";
import { createChat } from "../../src/chat/hub.ts";
import { sqliteChatLog } from "../../src/chat/sqlite.ts";
import { fakeClock, type FakeClock } from "./clock.ts";
import { openSocket, type TestSocket } from "./socket.ts";

export const TOKEN_SECRET = new TextEncoder().encode("test token secret, 32 bytes or more");
export const SESSION_SECRET = new TextEncoder().encode("test session secret, 32 bytes or more");

/** A server in this process, on a port of its own, with a clock that stands still and a log that is kept. */
export interface TestServer extends AsyncDisposable {
  readonly server: RunningServer;
  readonly deps: Deps;
  readonly clock: FakeClock;
  readonly port: number;
  /** `http://127.0.0.1:<port>`: the server's own origin, too. */
  readonly origin: string;
  /** Every log line so far. */
  readonly logLines: readonly string[];
  /** A valid token, an hour long unless said otherwise. */
  token(
    user?: string,
    options?: { ttlMs?: number; claims?: Record<string, unknown> },
  ): Promise<string>;
  mint(token: string): Promise<Response>;
  /** A fresh ticket for `user`. */
  ticket(user?: string): Promise<string>;
  /** `name=value` of a new visitor's cookie. */
  visitorCookie(): Promise<string>;
  /** Open sockets; the promise rejects when they are refused. */
  openUser(user?: string): Promise<TestSocket>;
  openVisitor(cookie?: string): Promise<TestSocket>;
}

export function startServer(
  options: Partial<DepsOptions> & Partial<Pick<ServeOptions, "handlers" | "socketLimits">> = {},
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
  const { handlers = createChat(chat, deps), socketLimits } = options;
  const server = serve({ ...deps, handlers, ...(socketLimits && { socketLimits }) });
  const origin = server.url.origin;
  const socketUrl = `${origin.replace("http", "ws")}/ws/chat`;
  const opened = async (socket: TestSocket) => {
    await socket.opened;
    return socket;
  };

  const self: TestServer = {
    server,
    deps,
    clock,
    port: Number(server.url.port),
    origin,
    logLines,
    token: (user = "alice", { ttlMs = 3_600_000, claims } = {}) =>
      signToken({
        secret: TOKEN_SECRET,
        user,
        expiresAtMs: clock.nowMs() + ttlMs,
        ...(claims && { claims }),
      }),
    mint: (token) =>
      fetch(`${origin}/api/auth/ws-ticket`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
      }),
    async ticket(user) {
      const answer = await self.mint(await self.token(user));
      return ((await answer.json()) as { ticket: string }).ticket;
    },
    async visitorCookie() {
      const answer = await fetch(`${origin}/api/auth/anonymous-session`, { method: "POST" });
      return answer.headers.get("set-cookie")?.split(";")[0] ?? "";
    },
    openUser: async (user) => opened(openSocket(`${socketUrl}?ticket=${await self.ticket(user)}`)),
    openVisitor: async (cookie) =>
      opened(
        openSocket(socketUrl, { Origin: origin, Cookie: cookie ?? (await self.visitorCookie()) }),
      ),
    [Symbol.asyncDispose]: () => server.stop(),
  };
  return self;
}
