/** What the browser noticed that may concern a connection. */
export type Hint = "online" | "offline" | "visible";

/** As much of a `WebSocket` as is needed. */
export interface ClientSocket {
  /** The socket is open. */
  onopen: (() => void) | null;
  /** A frame. */
  onmessage: ((event: { data: unknown }) => void) | null;
  /** It failed; `onclose` may follow, or not. */
  onerror: (() => void) | null;
  /** The socket has closed. */
  onclose: ((event: { code: number; reason: string }) => void) | null;
  /** Sends a text frame. */
  send(text: string): void;
  /** Closes the socket. */
  close(code?: number): void;
}

/** Everything that the client takes from its surroundings. What you leave out is the browser's. */
export interface Runtime {
  /** Wall clock, in milliseconds. */
  nowMs(): number;
  /** A clock that never jumps, in milliseconds. */
  monotonicMs(): number;
  /** From 0 up to, not including, 1. */
  random(): number;
  /** Runs once, later; the returned function prevents it. */
  after(delayMs: number, run: () => void): () => void;
  /** As the global `fetch`. */
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Opens a WebSocket. */
  openSocket(url: string, protocols?: string | readonly string[]): ClientSocket;
  /** Whether `fetch` keeps cookies and `openSocket` sends them. Without that there are no visitors. */
  readonly keepsCookies: boolean;
  /** A new id for a message, never the same twice. */
  newRef(): string;
  /** Until the returned function is called. */
  onHint(listener: (hint: Hint) => void): () => void;
  /** What a listener threw. Default: an uncaught error. */
  reportError(error: unknown): void;
}

/** The browser's, except for what is given. Looks at nothing before it is called, so that servers can import it. */
export function completeRuntime(given: Partial<Runtime> = {}): Runtime {
  return { ...browserRuntime, ...given };
}

/** As much of a `Document` as is needed, for runtimes whose types have none. */
interface Page extends EventTarget {
  readonly visibilityState: string;
}

const browserRuntime: Runtime = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  random: () => Math.random(),
  after(delayMs, run) {
    const timer = setTimeout(run, delayMs);
    return () => clearTimeout(timer);
  },
  fetch: (url, init) => fetch(url, init),
  openSocket: (url, protocols) => new WebSocket(url, protocols as string[]) as ClientSocket,
  // Pages, and workers of pages; React Native, too.
  get keepsCookies() {
    return "window" in globalThis || "importScripts" in globalThis;
  },
  // Not randomUUID: browsers have it on secure origins only.
  newRef: () => crypto.getRandomValues(new Uint32Array(4)).join("-"),
  onHint(listener) {
    const listening = new AbortController();
    const { signal } = listening;
    // Where there are no such events (a worker, a test), there are no hints.
    for (const hint of ["online", "offline"] as const) {
      globalThis.addEventListener?.(hint, () => listener(hint), { signal });
    }
    const { document } = globalThis as { document?: Page };
    document?.addEventListener(
      "visibilitychange",
      () => document.visibilityState === "visible" && listener("visible"),
      { signal },
    );
    return () => listening.abort();
  },
  reportError(error) {
    setTimeout(() => {
      throw error;
    });
  },
};
