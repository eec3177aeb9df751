/// <reference lib="esnext.disposable" preserve="true" />
import {
  CREDENTIAL_EXPIRED,
  NO_HEARTBEAT,
  reconnectsAfter,
  SERVICE_RESTART,
} from "../wire/close.ts";
import { createEmitter } from "./events.ts";
import { Failure } from "./failure.ts";
import type { ClientSocket, Hint, Runtime } from "./runtime.ts";

/** The wait before a new try is random, up to a ceiling that doubles from the first of these to the second. */
export const FIRST_CEILING_MS = 250;
export const MAX_CEILING_MS = 30_000;
/** A server that restarts lost everybody at once: they come back spread over at least so long. */
export const RESTART_SPREAD_MS = 2_000;
/** An attempt, from asking for the token to the open socket, may take so long. */
export const ATTEMPT_TIMEOUT_MS = 10_000;
/** A socket that was open for so long was worth its attempt: the ceiling starts from below again. */
export const STABLE_AFTER_MS = 5_000;
/** A socket that was silent for so long may have died unnoticed while nobody looked. */
export const QUIET_AFTER_MS = 60_000;

/** How a connection is doing. */
export type ConnectionState =
  | { readonly status: "connecting" }
  | { readonly status: "open" }
  /** Comes back by itself at `untilMs` (wall clock). */
  | { readonly status: "waiting"; readonly untilMs: number; readonly failure: Failure }
  /** Doesn't come back by itself. */
  | { readonly status: "closed"; readonly failure: Failure };

/** What `on` listens to. */
export interface ConnectionEvents {
  /** The connection is in another state. */
  state: ConnectionState;
  /** A new socket is in use, the first one or a successor: subscribe again, send again. */
  open: undefined;
  /** The text of a frame; where two sockets overlap, one may come twice. */
  message: string;
  /** An attempt failed (its code is a status, or 0) or a socket was lost (its code is a close code). */
  down: Failure;
}

/** A connection that comes back when it is lost, until it is disposed of. */
export interface Connection extends Disposable {
  /** How it is doing. */
  readonly state: ConnectionState;
  /** Listens until the returned function is called. */
  on<Name extends keyof ConnectionEvents>(
    name: Name,
    listener: (event: ConnectionEvents[Name]) => void,
  ): () => void;
  /** Sends a text frame. `false` when no socket is open: then it isn't sent, now or later. */
  send(text: string): boolean;
  /** The credential ends soon, as your server says: opens the next socket, then closes this one. */
  renew(): void;
  /** The socket may be dead, since no answer came: replaces it, or finds out that the server is out of reach. */
  check(): void;
  /** Tries to connect now, also after `closed`. */
  retry(): void;
  /** Closes the connection for good. */
  dispose(): void;
}

/** Keeps one socket open, and comes back when it is lost. Every attempt gets a URL of its own. */
export function keepSocket(options: {
  /**
   * The URL of one attempt, with a credential of its own. `renewing`: the open socket is still good, a new
   * one is wanted only with a new credential.
   */
  getUrl(signal: AbortSignal, renewing: boolean): Promise<string>;
  protocols: string | readonly string[] | undefined;
  /** A socket that is silent for so long is dead; 0 for never. */
  silenceMs: number;
  runtime: Runtime;
}): Connection {
  const { getUrl, protocols, silenceMs, runtime } = options;
  const { on, emit, clear } = createEmitter<ConnectionEvents>(runtime);
  let state: ConnectionState = { status: "connecting" };
  /** The socket in use; an attempt has its own until that is open. */
  let current: ClientSocket | undefined;
  let stopAttempt: (() => void) | undefined;
  /** The end of the line, or of the wait for the next try. */
  let verdict: ConnectionState = state;
  let failures = 0;
  let isStable = false;
  let isDoubtful = false;
  /** The server asked for the wait: no hint cuts it short. */
  let isHeldBack = false;
  let isDisposed = false;
  let lastHeardMs = 0;
  let cancelStable = (): void => {};
  let cancelWatch = (): void => {};
  // Not at once: what is disposed of in the same breath (React's StrictMode mounts twice) never starts.
  let cancelTry = runtime.after(0, connect);
  const stopHints = runtime.onHint(onHint);

  function connect(): void {
    if (isDisposed) return;
    stopAttempt?.();
    cancelTry();
    isHeldBack = false;
    const abort = new AbortController();
    const { signal } = abort;
    let socket: ClientSocket | undefined;
    const cancelDeadline = runtime.after(ATTEMPT_TIMEOUT_MS, () => fail(new Failure(0, "timeout")));
    stopAttempt = () => {
      stopAttempt = undefined;
      cancelDeadline();
      abort.abort();
      if (socket && socket !== current) release(socket);
    };
    const renewing = current !== undefined && !isDoubtful;
    publish();
    // Unless a listener has just disposed of it.
    if (signal.aborted) return;
    getUrl(signal, renewing)
      .then((url) => {
        if (signal.aborted) return;
        const opening = (socket = openSocket(url));
        opening.onopen = () => adopt(opening);
        opening.onclose = ({ code, reason }) => lose(opening, new Failure(code, reason));
        // Node's WebSocket doesn't close when the handshake is refused.
        opening.onerror = () => opening !== current && lose(opening, new Failure(1006, ""));
        opening.onmessage = ({ data }) => {
          lastHeardMs = runtime.monotonicMs();
          if (typeof data === "string") emit("message", data);
        };
      })
      .catch((error) => {
        if (!signal.aborted) fail(Failure.from(error));
      });
  }

  function openSocket(url: string): ClientSocket {
    try {
      return runtime.openSocket(url, protocols);
    } catch (cause) {
      // No `WebSocket`, as in Node before version 22, or not with this URL from this page.
      throw new Failure(0, "no_socket", { cause });
    }
  }

  function adopt(socket: ClientSocket): void {
    const previous = current;
    current = socket;
    stopAttempt?.();
    if (previous) release(previous);
    isDoubtful = false;
    isStable = false;
    lastHeardMs = runtime.monotonicMs();
    cancelTimers();
    watch(socket);
    cancelStable = runtime.after(STABLE_AFTER_MS, () => {
      isStable = true;
      failures = 0;
    });
    publish();
    emit("open", undefined);
  }

  /** One timer for any number of frames. A dead path sends no FIN: without this it would look open for ever. */
  function watch(socket: ClientSocket): void {
    if (!silenceMs) return;
    cancelWatch = runtime.after(lastHeardMs + silenceMs - runtime.monotonicMs(), () => {
      if (runtime.monotonicMs() - lastHeardMs < silenceMs) return watch(socket);
      release(socket);
      lose(socket, new Failure(NO_HEARTBEAT, "silent"));
    });
  }

  function cancelTimers(): void {
    cancelStable();
    cancelWatch();
  }

  function lose(socket: ClientSocket, failure: Failure): void {
    if (socket !== current) return fail(failure);
    current = undefined;
    cancelTimers();
    // Whatever failed meanwhile, such as to renew it, doesn't count against what follows.
    if (isStable) failures = 0;
    if (!stopAttempt || isFinal(failure)) return fail(failure);
    // Its successor is on the way.
    emit("down", failure);
    publish();
  }

  function fail(failure: Failure): void {
    stopAttempt?.();
    cancelTry();
    if (current && isDoubtful) {
      release(current);
      current = undefined;
      cancelTimers();
    }
    isDoubtful = false;
    if (isFinal(failure)) verdict = { status: "closed", failure };
    else if (failure.code === CREDENTIAL_EXPIRED && failures === 0) {
      failures++;
      verdict = { status: "connecting" };
      cancelTry = runtime.after(0, connect);
    } else wait(failure);
    emit("down", failure);
    publish();
  }

  function wait(failure: Failure): void {
    const ceilingMs = Math.min(FIRST_CEILING_MS * 2 ** failures, MAX_CEILING_MS);
    const spreadMs =
      failure.code === SERVICE_RESTART ? Math.max(ceilingMs, RESTART_SPREAD_MS) : ceilingMs;
    const delayMs = failure.retryAfterMs + runtime.random() * spreadMs;
    failures++;
    isHeldBack = failure.retryAfterMs > 0;
    cancelTry();
    cancelTry = runtime.after(delayMs, connect);
    verdict = { status: "waiting", untilMs: runtime.nowMs() + delayMs, failure };
  }

  function publish(): void {
    if (isDisposed) return;
    const next: ConnectionState = current
      ? { status: "open" }
      : stopAttempt
        ? { status: "connecting" }
        : verdict;
    if (next === state || (next.status === state.status && !("failure" in next))) return;
    state = next;
    emit("state", state);
  }

  function onHint(hint: Hint): void {
    if (isHeldBack) return;
    const isQuiet = runtime.monotonicMs() - lastHeardMs >= QUIET_AFTER_MS;
    // An attempt that began without a network may hang in it.
    const mayHang = stopAttempt !== undefined && hint === "online";
    const isDue = current
      ? hint !== "visible" || isQuiet
      : hint !== "offline" && (state.status === "waiting" || mayHang);
    if (!isDue) return;
    isDoubtful = current !== undefined;
    connect();
  }

  function dispose(): void {
    isDisposed = true;
    clear();
    stopHints();
    cancelTry();
    cancelTimers();
    stopAttempt?.();
    if (current) release(current);
    current = undefined;
    state = { status: "closed", failure: new Failure(1000, "disposed") };
  }

  return {
    get state() {
      return state;
    },
    on,
    send(text) {
      current?.send(text);
      return current !== undefined;
    },
    renew() {
      if (!current || stopAttempt) return;
      // A socket that expires as soon as it is open would be renewed without end.
      if (isStable) connect();
      else wait(new Failure(CREDENTIAL_EXPIRED, "expiring"));
    },
    check() {
      if (!current) return;
      isDoubtful = true;
      if (!stopAttempt) connect();
    },
    retry() {
      if (!current) connect();
    },
    dispose,
    [Symbol.dispose]: dispose,
  };
}

/** Whether reconnecting would only bring the same result: refused, signed out, unwanted. */
function isFinal({ code, reason }: Failure): boolean {
  return (
    (code === 0 && reason.startsWith("no_")) ||
    code === 401 ||
    code === 403 ||
    !reconnectsAfter(code)
  );
}

/** Lets go of a socket without hearing of it again. */
function release(socket: ClientSocket): void {
  socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
  socket.close(1000);
}
