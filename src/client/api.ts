import { BASE_PATH, SOCKET_PATH, TICKET_PATH, VISITOR_PATH } from "../wire/paths.ts";
import { ATTEMPT_TIMEOUT_MS } from "./connection.ts";
import { Failure } from "./failure.ts";
import type { Runtime } from "./runtime.ts";

/** A user's JWT, or what gives the current one when asked. */
export type TokenSource = string | (() => string | Promise<string>);

/** The server's HTTP side, for one user or visitor. Whatever isn't a success rejects with a `Failure`. */
export interface Api {
  /** The URL of one new socket. Makes the credential for it first: a user's ticket, or the visitor's cookie. */
  socketUrl(attempt: { signal: AbortSignal; renewing: boolean }): Promise<string>;
  /** The parsed answer; `undefined` where it has no body. */
  call(method: string, path: string): Promise<unknown>;
  dispose(): void;
}

export function createApi(options: {
  url: string | URL;
  getToken: TokenSource | undefined;
  runtime: Runtime;
}): Api {
  const { url, getToken, runtime } = options;
  const disposed = new AbortController();
  let token: string | undefined;

  async function ask(method: string, path: string, signal: AbortSignal): Promise<Response> {
    const response = await runtime.fetch(new URL(path, url).href, {
      method,
      signal,
      cache: "no-store",
      // The cookie is the visitor's; a user's requests need none.
      ...(token === undefined
        ? { credentials: "include" }
        : { credentials: "omit", headers: { Authorization: `Bearer ${token}` } }),
    });
    if (!response.ok) throw await Failure.of(response, runtime.nowMs());
    return response;
  }

  return {
    async socketUrl({ signal, renewing }) {
      const socketUrl = new URL(SOCKET_PATH, url);
      socketUrl.protocol = socketUrl.protocol.replace("http", "ws");
      if (getToken === undefined) {
        await ask("POST", `${BASE_PATH}${VISITOR_PATH}`, signal);
        return socketUrl.href;
      }
      const next = await (typeof getToken === "function" ? getToken() : getToken);
      if (signal.aborted) throw signal.reason;
      if (renewing && next === token) throw new Failure(0, "token_unchanged");
      token = next;
      const response = await ask("POST", `${BASE_PATH}${TICKET_PATH}`, signal);
      const { ticket } = (await response.json()) as { ticket: string };
      socketUrl.searchParams.set("ticket", ticket);
      return socketUrl.href;
    },
    async call(method, path) {
      const abort = new AbortController();
      const cancelDeadline = runtime.after(ATTEMPT_TIMEOUT_MS, () => abort.abort());
      disposed.signal.addEventListener("abort", () => abort.abort(), { signal: abort.signal });
      try {
        if (getToken !== undefined) {
          token ??= await (typeof getToken === "function" ? getToken() : getToken);
        }
        const response = await ask(method, path, abort.signal);
        return response.status === 204 ? undefined : await response.json();
      } catch (error) {
        throw Failure.from(error);
      } finally {
        cancelDeadline();
        abort.abort();
      }
    },
    dispose: () => disposed.abort(),
  };
}
