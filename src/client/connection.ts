import { CLOSE, reconnectsAfter } from "../wire/close.ts";
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

const RESTART = CLOSE.serviceRestart.code;
const EXPIRED = CLOSE.credentialExpired.code;

/** How a connection is doing. */
export type ConnectionState =
  | { readonly status: "connecting" }
  | { readonly status: "open" }
  /** Comes back by itself at `untilMs` (wall clock). */
  | { readonly status: "waiting"; readonly untilMs: number; readonly failure: Failure }
  /** Doesn't come back by itself. */
  | { readonly status: "closed"; readonly failure: Failure };

export interface ConnectionOptions {
  /**
   * The URL of one attempt, with a credential of its own. `renewing`: the open socket is still good, a new
   * one is wanted only with a new credential.
   */
  getUrl(attempt: { signal: AbortSignal; renewing: boolean }): Promise<string>;
  onState(state: ConnectionState): void;
  /** An attempt failed, or the socket was lost: both end here, with their code. */
  onDown(failure: Failure): void;
  /** A new socket is in use. An earlier one, if it was still open, is let go. */
  onOpen(): void;
  onText(text: string): void;
  runtime: Runtime;
}

export interface Connection {
  readonly state: ConnectionState;
  send(text: string): void;
  /** The credential behind the socket ends soon: open the next socket first, then let go of this one. */
  renew(): void;
  /** The socket may be dead: replace it, or find out that the server is out of reach. */
  check(): void;
  /** Somebody wants it open now, whatever happened before. */
  retry(): void;
  dispose(): void;
}

/** Keeps one socket open, and comes back when it is lost. Every attempt asks for a URL of its own. */
export function createConnection(options: ConnectionOptions): Connection {
  const { getUrl, onState, onDown, onOpen, onText, runtime } = options;
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
  let lastHeardMs = 0;
  let cancelStable = (): void => {};
  // Not at once: what is disposed of in the same breath (React's StrictMode mounts twice) never starts.
  let cancelTry = runtime.after(0, connect);
  const stopHints = runtime.onHint(onHint);

  function connect(): void {
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
    publish();
    const renewing = current !== undefined && !isDoubtful;
    getUrl({ signal, renewing })
      .then((url) => {
        if (signal.aborted) return;
        const opening = (socket = runtime.openSocket(url));
        opening.onopen = () => adopt(opening);
        opening.onclose = ({ code, reason }) => lose(opening, new Failure(code, reason));
        opening.onmessage = ({ data }) => {
          lastHeardMs = runtime.nowMs();
          if (typeof data === "string") onText(data);
        };
      })
      .catch((error) => {
        if (!signal.aborted) fail(Failure.from(error));
      });
  }

  function adopt(socket: ClientSocket): void {
    const previous = current;
    current = socket;
    stopAttempt?.();
    if (previous) release(previous);
    isDoubtful = false;
    isStable = false;
    lastHeardMs = runtime.nowMs();
    cancelStable();
    cancelStable = runtime.after(STABLE_AFTER_MS, () => {
      isStable = true;
      failures = 0;
    });
    publish();
    // Unless a listener has just disposed of it.
    if (current === socket) onOpen();
  }

  function lose(socket: ClientSocket, failure: Failure): void {
    if (socket !== current) return fail(failure);
    current = undefined;
    cancelStable();
    // Whatever failed meanwhile, such as to renew it, doesn't count against what follows.
    if (isStable) failures = 0;
    if (!stopAttempt || isFinal(failure)) return fail(failure);
    // Its successor is on the way.
    onDown(failure);
    publish();
  }

  function fail(failure: Failure): void {
    stopAttempt?.();
    cancelTry();
    if (current && isDoubtful) {
      release(current);
      current = undefined;
      cancelStable();
    }
    isDoubtful = false;
    if (isFinal(failure)) verdict = { status: "closed", failure };
    else if (failure.code === EXPIRED && failures === 0) {
      failures++;
      verdict = { status: "connecting" };
      cancelTry = runtime.after(0, connect);
    } else wait(failure);
    onDown(failure);
    publish();
  }

  function wait(failure: Failure): void {
    const ceilingMs = Math.min(FIRST_CEILING_MS * 2 ** failures, MAX_CEILING_MS);
    const spreadMs = failure.code === RESTART ? Math.max(ceilingMs, RESTART_SPREAD_MS) : ceilingMs;
    const delayMs = failure.retryAfterMs + runtime.random() * spreadMs;
    failures++;
    isHeldBack = failure.retryAfterMs > 0;
    cancelTry();
    cancelTry = runtime.after(delayMs, connect);
    verdict = { status: "waiting", untilMs: runtime.nowMs() + delayMs, failure };
  }

  function publish(): void {
    const next: ConnectionState = current
      ? { status: "open" }
      : stopAttempt
        ? { status: "connecting" }
        : verdict;
    if (next === state || (next.status === state.status && !("failure" in next))) return;
    state = next;
    onState(state);
  }

  function onHint(hint: Hint): void {
    if (isHeldBack) return;
    const isQuiet = runtime.nowMs() - lastHeardMs >= QUIET_AFTER_MS;
    // An attempt that began without a network may hang in it.
    const mayHang = stopAttempt !== undefined && hint === "online";
    const isDue = current
      ? hint !== "visible" || isQuiet
      : hint !== "offline" && (state.status === "waiting" || mayHang);
    if (!isDue) return;
    isDoubtful = current !== undefined;
    connect();
  }

  return {
    get state() {
      return state;
    },
    send: (text) => current?.send(text),
    renew() {
      if (!current || stopAttempt) return;
      // A socket that expires as soon as it is open would be renewed without end.
      if (isStable) connect();
      else wait(new Failure(EXPIRED, "expiring"));
    },
    check() {
      if (!current) return;
      isDoubtful = true;
      if (!stopAttempt) connect();
    },
    retry() {
      if (!current) connect();
    },
    dispose() {
      stopHints();
      cancelTry();
      cancelStable();
      stopAttempt?.();
      if (current) release(current);
      current = undefined;
      state = { status: "closed", failure: new Failure(1000, "disposed") };
    },
  };
}

/** Whether reconnecting would only bring the same result: refused, signed out, unwanted. */
function isFinal({ code }: Failure): boolean {
  return code === 401 || code === 403 || !reconnectsAfter(code);
}

/** Lets go of a socket without hearing of it again. */
function release(socket: ClientSocket): void {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(1000);
}
