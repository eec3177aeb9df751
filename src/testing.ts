/// <reference lib="esnext.disposable" preserve="true" />
import { createChat } from "./chat/chat.ts";
import { sqliteChatHistory } from "./chat/sqlite.ts";
import { createGate, type Gate } from "./gate/gate.ts";
import type { GateOptions } from "./gate/gate-options.ts";
import { memoryTicketStore } from "./gate/memory.ts";
import type { TicketStore } from "./gate/store.ts";
import { signToken } from "./gate/token.ts";
import type { Clock } from "./lib/clock.ts";
import { createLog } from "./lib/log.ts";
import type { SocketLimits } from "./sockets/limits.ts";
import { roomOf, type RunningServer, serve, type ServeOptions } from "./sockets/serve.ts";
import type { SocketHandlers } from "./sockets/socket.ts";
import { CHATS_PATH, SOCKET_PATH, VISITOR_PATH } from "./wire/paths.ts";

/** Secrets of test servers: nothing else may use them. */
const TOKEN_SECRET = "ws-ticket/testing: the secret that signs tokens";
const SESSION_SECRET = "ws-ticket/testing: the secret that signs cookies";
/** Where test clocks start. */
const START_MS = Date.parse("2026-01-01T00:00:00Z");
/** How far time moves before real events get their turn, in milliseconds: well below a heartbeat. */
const STEP_MS = 5_000;
/** Turns of the event loop in which pongs may arrive. */
const MAX_TURNS = 1_000;

/** A clock that stands still until a test moves it. */
export interface TestClock extends Clock {
  /** Lets `ms` milliseconds pass, with everything that happens meanwhile: heartbeats are answered, timers run. */
  advance(ms: number): Promise<void>;
  /** The same without waiting for anything outside the clock. */
  step(ms: number): void;
  /** Sets the wall clock alone, as an operator or NTP would. */
  jumpWall(ms: number): void;
  /** What waits for time to pass: what a server that is gone must not leave behind. */
  readonly waiting: { readonly intervals: number; readonly delays: number };
}

/**
 * Makes a clock that stands still. `afterStep` lets real events happen before time moves on.
 *
 * @example
 * const clock = createTestClock();
 * const gate = createGate({ users: { secret }, clock });
 * await clock.advance(31_000);
 */
export function createTestClock(
  options: { startMs?: number; afterStep?: () => Promise<void> } = {},
): TestClock {
  let wallMs = options.startMs ?? START_MS;
  let monotonicMs = 1_000;
  const timers = new Set<{ intervalMs?: number; nextMs: number; run: () => void }>();

  function nextTimer(endMs: number) {
    let next: { intervalMs?: number; nextMs: number; run: () => void } | undefined;
    for (const timer of timers) {
      if (timer.nextMs <= endMs && (!next || timer.nextMs < next.nextMs)) next = timer;
    }
    return next;
  }

  function step(ms: number): void {
    const endMs = monotonicMs + ms;
    for (let timer = nextTimer(endMs); timer; timer = nextTimer(endMs)) {
      wallMs += timer.nextMs - monotonicMs;
      monotonicMs = timer.nextMs;
      if (timer.intervalMs === undefined) timers.delete(timer);
      else timer.nextMs += timer.intervalMs;
      timer.run();
    }
    wallMs += endMs - monotonicMs;
    monotonicMs = endMs;
  }

  return {
    nowMs: () => wallMs,
    monotonicMs: () => monotonicMs,
    every(intervalMs, run) {
      const timer = { intervalMs, nextMs: monotonicMs + intervalMs, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    after(delayMs, run) {
      const timer = { nextMs: monotonicMs + delayMs, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    step,
    jumpWall(ms) {
      wallMs += ms;
    },
    get waiting() {
      const intervals = [...timers].filter((timer) => timer.intervalMs !== undefined).length;
      return { intervals, delays: timers.size - intervals };
    },
    async advance(ms) {
      for (let leftMs = ms; leftMs > 0; leftMs -= STEP_MS) {
        step(Math.min(leftMs, STEP_MS));
        await options.afterStep?.();
      }
    },
  };
}

/** A ticket store in memory that fails when a test says so. */
export interface TestStore extends TicketStore {
  /** Every operation rejects from now on. */
  fail(): void;
  /** Every operation works again. */
  recover(): void;
}

/** One end of a socket. */
export interface TestSocket {
  /** The next text message, already received or still to come; rejects when the socket closes first. */
  next(): Promise<string>;
  /** Sends a text message. */
  send(text: string): void;
  /** Resolves when the socket has closed. */
  readonly closed: Promise<{ code: number; reason: string }>;
  /** Closes it from this end. */
  close(code?: number): void;
}

/** How a socket is opened. */
export interface ConnectOptions<Claims = unknown> {
  /** What the ticket carries. */
  readonly claims?: Claims | undefined;
  /** Further parameters of the URL, such as `{ room: "7" }`. */
  readonly parameters?: Readonly<Record<string, string>> | undefined;
}

/** What a test server is made of; everything has a default. */
export interface TestServerOptions<Claims = unknown>
  extends
    Partial<Omit<GateOptions<Claims>, "clock" | "log" | "store">>,
    Pick<ServeOptions, "path" | "fetch"> {
  /** What sockets are for. Default: the chat, in memory. */
  readonly handlers?: SocketHandlers<Claims> | undefined;
  /** Of its sockets. */
  readonly limits?: Partial<SocketLimits> | undefined;
}

/** A server in the test's own process, on a free port. `await using` stops it at the end of the test. */
export interface TestServer<Claims = unknown> extends AsyncDisposable {
  /** `http://127.0.0.1:<port>`. */
  readonly url: string;
  /** Behind it. */
  readonly gate: Gate<Claims>;
  /** To stop it within the test. */
  readonly server: RunningServer;
  /** Moves only when the test says so. */
  readonly clock: TestClock;
  /** Fails only when the test says so. */
  readonly store: TestStore;
  /** Every line of the log so far, from `debug` upwards, as JSON. */
  readonly logLines: readonly string[];
  /** A bearer token, valid for an hour unless `ttlMs` says otherwise. */
  token(
    user: string,
    options?: { ttlMs?: number; claims?: Record<string, unknown> },
  ): Promise<string>;
  /** A ticket for a socket. */
  ticket(user: string, options?: Pick<ConnectOptions<Claims>, "claims">): Promise<string>;
  /** An open socket of a user; rejects when the handshake is refused. */
  connectAs(user: string, options?: ConnectOptions<Claims>): Promise<TestSocket>;
  /** An open socket of a new visitor, or of the one with this cookie (`name=value`). */
  connectVisitor(
    options?: { cookie?: string } & Pick<ConnectOptions, "parameters">,
  ): Promise<TestSocket & { readonly cookie: string }>;
}

/**
 * Starts a server for a test: the real one, with a clock that stands still, a store that can fail, and a log
 * that is kept.
 *
 * @example
 * await using server = await createTestServer({ handlers });
 * const alice = await server.connectAs("alice");
 * alice.send("hello");
 * expect(await alice.next()).toBe("hello");
 */
export async function createTestServer<Claims = unknown>(
  options: TestServerOptions<Claims> = {},
): Promise<TestServer<Claims>> {
  const { handlers, limits, path = SOCKET_PATH, fetch: ownFetch, ...gateOptions } = options;
  const logLines: string[] = [];
  const clock = createTestClock({ afterStep: settle });
  const log = createLog({ level: "debug", clock, write: (line) => void logLines.push(line) });
  const store = createTestStore(clock);
  const gate = createGate<Claims>({
    users: { secret: TOKEN_SECRET },
    visitors: { secret: SESSION_SECRET },
    ticketsPerMinute: 0,
    ...gateOptions,
    clock,
    log,
    store,
  });
  const history = sqliteChatHistory({ path: ":memory:", clock });
  const chat = createChat(gate as Gate, history);
  const server = serve(gate, handlers ?? (chat.handlers as SocketHandlers<Claims>), {
    path,
    limits,
    fetch: (request, connection) =>
      ownFetch && !new URL(request.url).pathname.startsWith(CHATS_PATH)
        ? ownFetch(request, connection)
        : chat.fetch(request, connection),
  });
  const url = server.url.origin;

  async function settle(): Promise<void> {
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (turn >= 3 && !roomOf(server).awaitsPongs) return;
    }
  }

  function connect(parameters: Record<string, string>, headers: Record<string, string>) {
    const query = new URLSearchParams(parameters).toString();
    return openSocket(`${url.replace("http", "ws")}${path}${query && `?${query}`}`, headers);
  }

  const self: TestServer<Claims> = {
    url,
    gate,
    server,
    clock,
    store,
    logLines,
    token(user, { ttlMs = 3_600_000, claims } = {}) {
      const nowMs = clock.nowMs();
      return signToken({
        secret: TOKEN_SECRET,
        user,
        expiresAtMs: nowMs + ttlMs,
        claims: { iat: Math.floor(nowMs / 1000), jti: crypto.randomUUID(), ...claims },
      });
    },
    async ticket(user, { claims } = {}) {
      const expiresAtMs = clock.nowMs() + 3_600_000;
      const session = crypto.randomUUID();
      const issued = await gate.issue({ user, session, expiresAtMs, claims });
      if (!issued.ok) throw new Error(`Ticket was refused: ${issued.code}`);
      return issued.ticket;
    },
    async connectAs(user, { claims, parameters } = {}) {
      const ticket = await self.ticket(user, { claims });
      return connect({ ...parameters, ticket }, {});
    },
    async connectVisitor({ cookie = "", parameters = {} } = {}) {
      let own = cookie;
      if (own === "") {
        const path = `${gate.basePath}${VISITOR_PATH}`;
        const response = await fetch(`${url}${path}`, { method: "POST" });
        own = response.headers.get("set-cookie")?.split(";")[0] ?? "";
      }
      const socket = await connect({ ...parameters }, { Cookie: own, Origin: url });
      return Object.assign(socket, { cookie: own });
    },
    async [Symbol.asyncDispose]() {
      let isStopped = false;
      const stopped = server.stop().finally(() => {
        isStopped = true;
      });
      // Time passes, or a silent peer would hold up the end of a test.
      for (; !isStopped; clock.step(100)) await settle();
      await stopped;
      if (handlers) await history.close();
      await gate.close();
    },
  };
  return self;
}

function createTestStore(clock: Clock): TestStore {
  const inner = memoryTicketStore({ clock });
  let isFailing = false;
  const guard = <T>(work: () => Promise<T>): Promise<T> =>
    isFailing ? Promise.reject(new Error("Store fails, as the test wants it")) : work();
  return {
    put: (...args) => guard(() => inner.put(...args)),
    take: (...args) => guard(() => inner.take(...args)),
    revoke: (...args) => guard(() => inner.revoke(...args)),
    isRevoked: (...args) => guard(() => inner.isRevoked(...args)),
    close: () => inner.close(),
    fail: () => void (isFailing = true),
    recover: () => void (isFailing = false),
  };
}

/** Bun's `WebSocket` takes headers, which the type of browsers doesn't know. */
async function openSocket(url: string, headers: Record<string, string>): Promise<TestSocket> {
  const socket = new WebSocket(url, { headers } as unknown as string[]);
  const received: string[] = [];
  const waiting: { resolve(text: string): void; reject(error: Error): void }[] = [];
  const closed = Promise.withResolvers<{ code: number; reason: string }>();
  const opened = Promise.withResolvers<void>();
  socket.onopen = () => opened.resolve();
  socket.onmessage = ({ data }) => {
    const reader = waiting.shift();
    if (reader) reader.resolve(String(data));
    else received.push(String(data));
  };
  socket.onclose = ({ code, reason }) => {
    opened.reject(new Error(`Handshake was refused: ${code}`));
    for (const { reject } of waiting.splice(0)) reject(new Error(`Socket has closed: ${code}`));
    closed.resolve({ code, reason });
  };
  await opened.promise;
  return {
    next() {
      const text = received.shift();
      if (text !== undefined) return Promise.resolve(text);
      if (socket.readyState === WebSocket.CLOSED) {
        return Promise.reject(new Error("Socket has closed"));
      }
      return new Promise((resolve, reject) => void waiting.push({ resolve, reject }));
    },
    send: (text) => socket.send(text),
    closed: closed.promise,
    close: (code) => socket.close(code),
  };
}
