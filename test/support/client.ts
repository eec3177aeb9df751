import type { Hint, Runtime } from "../../src/client/mod.ts";
import { fakeClock, settle } from "./clock.ts";
import type { Frame } from "./socket.ts";

/** A browser and a server that do what a test tells them, under a clock that stands still. */
export interface ScriptedWorld {
  readonly runtime: Runtime;
  /** Every request so far. */
  readonly requests: readonly ScriptedRequest[];
  /** Every socket so far, in the order in which the client asked for them. */
  readonly sockets: readonly ScriptedSocket[];
  /** Timers that run, and listeners for hints: what a client that is gone must not leave behind. */
  readonly leftovers: number;
  /** What listeners have thrown. */
  readonly errors: readonly unknown[];
  /** Sets the wall clock alone. */
  jumpWall(ms: number): void;
  /** The server sends a heartbeat every 25 seconds. Default: it does. */
  beats: boolean;
  /** What `random` returns from now on. */
  random: number;
  /** Answers in place of the default; `undefined` for the default. */
  answer: (request: ScriptedRequest) => Response | Promise<Response> | undefined;
  /** Lets everything happen that needs no time. */
  settle(): Promise<void>;
  /** Lets time pass, step by step, with everything that happens meanwhile. */
  pass(ms: number): Promise<void>;
  hint(hint: Hint): Promise<void>;
  /** The client's newest socket, once it asked for `count` of them. Opens it. */
  open(count: number): Promise<ScriptedSocket>;
}

export interface ScriptedRequest {
  readonly method: string;
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
  readonly authorization: string | undefined;
  readonly credentials: string | undefined;
  readonly cache: string | undefined;
  readonly atMs: number;
  readonly signal: AbortSignal;
}

export interface ScriptedSocket {
  readonly url: string;
  readonly protocols: string | readonly string[] | undefined;
  readonly atMs: number;
  /** Frames that the client has sent. */
  readonly sent: readonly Frame[];
  /** The code with which the client closed it. */
  readonly closedWith: number | undefined;
  open(): Promise<void>;
  say(...frames: unknown[]): Promise<void>;
  /** A frame that isn't ours. */
  sayRaw(data: unknown): Promise<void>;
  /** An error; Node's WebSocket says no more than that when the handshake is refused. */
  fail(): Promise<void>;
  close(code: number, reason?: string): Promise<void>;
}

const HEARTBEAT = { type: "HEARTBEAT" };

export function scriptedWorld(): ScriptedWorld {
  const clock = fakeClock();
  const startMs = clock.monotonicMs();
  const due = new Set<{ readonly atMs: number }>();
  const hints = new Set<(hint: Hint) => void>();
  const requests: ScriptedRequest[] = [];
  const sockets: ScriptedSocket[] = [];
  const errors: unknown[] = [];
  let refs = 0;
  let beating = 0;
  const nowMs = () => clock.monotonicMs() - startMs;

  function defaultAnswer({ path }: ScriptedRequest): Response {
    if (path.endsWith("/anonymous-session")) return new Response(null, { status: 204 });
    if (path.endsWith("/ws-ticket")) {
      return Response.json({ ticket: `ticket-${requests.length}`, expiresIn: 30 });
    }
    if (path.includes("/api/chats?")) return Response.json({ chats: [], more: false });
    return Response.json({ messages: [], readUpTo: { user: "0", visitor: "0" }, more: false });
  }

  const runtime: Runtime = {
    nowMs: clock.nowMs,
    monotonicMs: clock.monotonicMs,
    random: () => world.random,
    after(delayMs, run) {
      const timer = { atMs: clock.monotonicMs() + delayMs };
      due.add(timer);
      const stop = clock.after(delayMs, () => {
        due.delete(timer);
        run();
      });
      return () => {
        due.delete(timer);
        stop();
      };
    },
    async fetch(url, init) {
      const { origin, pathname, search } = new URL(url);
      const request: ScriptedRequest = {
        method: init.method ?? "GET",
        origin,
        path: pathname + search,
        authorization: (init.headers as Record<string, string> | undefined)?.Authorization,
        credentials: init.credentials,
        cache: init.cache,
        atMs: nowMs(),
        signal: init.signal as AbortSignal,
      };
      requests.push(request);
      const { promise, reject } = Promise.withResolvers<never>();
      request.signal.addEventListener("abort", () => reject(request.signal.reason));
      return Promise.race([promise, world.answer(request) ?? defaultAnswer(request)]);
    },
    openSocket(url, protocols) {
      const sent: Frame[] = [];
      let closedWith: number | undefined;
      let stopBeats: (() => void) | undefined;
      const endBeats = () => {
        if (stopBeats) beating--;
        stopBeats?.();
        stopBeats = undefined;
      };
      const end: ReturnType<Runtime["openSocket"]> = {
        ...{ onopen: null, onmessage: null, onerror: null, onclose: null },
        send: (text) => void sent.push(JSON.parse(text)),
        close(code = 1005) {
          closedWith ??= code;
          endBeats();
        },
      };
      const socket: ScriptedSocket = {
        ...{ url, protocols, sent },
        atMs: nowMs(),
        get closedWith() {
          return closedWith;
        },
        open() {
          end.onopen?.();
          beating++;
          stopBeats = clock.every(25_000, () => world.beats && void socket.say(HEARTBEAT));
          return settle();
        },
        say(...frames) {
          for (const frame of frames) end.onmessage?.({ data: JSON.stringify(frame) });
          return settle();
        },
        sayRaw(data) {
          end.onmessage?.({ data });
          return settle();
        },
        fail() {
          end.onerror?.();
          return settle();
        },
        close(code, reason = "") {
          end.onclose?.({ code, reason });
          endBeats();
          // It happens once to every socket.
          end.onclose = null;
          return settle();
        },
      };
      sockets.push(socket);
      return end;
    },
    keepsCookies: true,
    reportError: (error) => void errors.push(error),
    newRef: () => `ref-${++refs}`,
    onHint(listener) {
      hints.add(listener);
      return () => hints.delete(listener);
    },
  };

  const world: ScriptedWorld = {
    ...{ runtime, requests, sockets, errors },
    settle: () => settle(),
    jumpWall: clock.jumpWall,
    beats: true,
    random: 0.5,
    answer: () => undefined,
    get leftovers() {
      return clock.timers - beating + clock.delays + hints.size;
    },
    async pass(ms) {
      const endMs = clock.monotonicMs() + ms;
      await settle();
      for (;;) {
        const nextMs = Math.min(...[...due].map(({ atMs }) => atMs), endMs);
        clock.advance(Math.max(nextMs - clock.monotonicMs(), 0));
        await settle();
        if (nextMs >= endMs) return;
      }
    },
    hint(hint) {
      for (const listener of hints) listener(hint);
      return settle();
    },
    async open(count) {
      await world.pass(0);
      const socket = sockets[count - 1];
      if (!socket || sockets.length !== count) throw new Error(`Sockets so far: ${sockets.length}`);
      await socket.open();
      return socket;
    },
  };
  return world;
}

/** The answer of a refusal (RFC 9457). */
export function problem(
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Response {
  return Response.json({ code }, { status, headers });
}
