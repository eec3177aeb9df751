import type { Address } from "./address.ts";
import { ATTEMPT_TIMEOUT_MS } from "./connection.ts";
import { Failure } from "./failure.ts";
import { request } from "./request.ts";
import type { Runtime } from "./runtime.ts";

/** The server's HTTP side, for one user or visitor. Whatever isn't a success rejects with a `Failure`. */
export interface Api {
  /** The parsed answer; `undefined` where it has no body. */
  call(method: string, path: string): Promise<unknown>;
  dispose(): void;
}

export function createApi(options: {
  at: Address;
  /** The user's token; `undefined` for a visitor. */
  getToken(): Promise<string | undefined>;
  runtime: Runtime;
}): Api {
  const { at, getToken, runtime } = options;
  const disposed = new AbortController();
  return {
    async call(method, path) {
      const abort = new AbortController();
      const { signal } = abort;
      const cancelDeadline = runtime.after(ATTEMPT_TIMEOUT_MS, () => abort.abort());
      disposed.signal.addEventListener("abort", () => abort.abort(), { signal });
      try {
        const token = await getToken();
        const response = await request(runtime, { method, url: at(path), signal, token });
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
