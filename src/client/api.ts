import type { Address } from "./address.ts";
import { ATTEMPT_TIMEOUT_MS } from "./connection.ts";
import { Failure } from "./failure.ts";
import { request } from "./request.ts";
import type { Runtime } from "./runtime.ts";

/** The server's HTTP side, for one user or visitor. Whatever isn't a success rejects with a `Failure`. */
export interface Api {
  /** The parsed answer; `undefined` where it has no body. */
  call<Body>(method: string, path: string): Promise<Body>;
  dispose(): void;
}

export function createApi(options: {
  at: Address;
  /** The user's token; `undefined` for a visitor. */
  getToken(): Promise<string | undefined>;
  runtime: Runtime;
}): Api {
  const { at, getToken, runtime } = options;
  const calls = new Set<AbortController>();
  let isDisposed = false;
  return {
    async call<Body>(method: string, path: string) {
      const abort = new AbortController();
      const { signal } = abort;
      const cancelDeadline = runtime.after(ATTEMPT_TIMEOUT_MS, () => abort.abort());
      calls.add(abort);
      try {
        const token = await getToken();
        if (isDisposed) throw new Failure(0, "disposed");
        const response = await request(runtime, { method, url: at(path), signal, token });
        return (response.status === 204 ? undefined : await response.json()) as Body;
      } catch (error) {
        throw Failure.from(error);
      } finally {
        cancelDeadline();
        calls.delete(abort);
      }
    },
    dispose() {
      isDisposed = true;
      for (const call of calls) call.abort();
    },
  };
}
