import { Failure } from "./failure.ts";
import type { Runtime } from "./runtime.ts";

/** Sends one request, as the user with this token, or as the visitor with the cookie. Rejects unless it succeeds. */
export async function request(
  runtime: Runtime,
  options: { method: string; url: URL; signal: AbortSignal; token: string | undefined },
): Promise<Response> {
  const { method, url, signal, token } = options;
  const response = await runtime.fetch(url.href, {
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
