import type { Clock } from "./clock.ts";
import { DeadlineError } from "./deadline.ts";

/** A dependency sent an unusable response. The message carries nothing of it. */
export class ResponseError extends Error {
  override name = "ResponseError";
  readonly code: string;
  constructor(code: string) {
    super(`Unusable response: ${code}`);
    this.code = code;
  }
}

/**
 * Fetches JSON from a dependency: one request, no redirects, at most `deadlineMs` and `maxBytes`. Rejects
 * otherwise.
 */
export async function fetchJson(
  url: string | URL,
  options: RequestInit & { deadlineMs: number; maxBytes: number; clock: Clock },
): Promise<{ status: number; body: unknown }> {
  const { deadlineMs, maxBytes, clock, ...init } = options;
  const abort = new AbortController();
  const cancel = clock.after(deadlineMs, () =>
    abort.abort(new DeadlineError(`No response in time: ${deadlineMs} ms`)),
  );
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, { ...init, redirect: "manual", signal: abort.signal });
    text = await readText(response, maxBytes);
  } finally {
    cancel();
  }
  if (response.status >= 300 && response.status < 400) throw new ResponseError("redirected");
  try {
    return { status: response.status, body: JSON.parse(text) };
  } catch {
    throw new ResponseError(`status_${response.status}_not_json`);
  }
}

async function readText(response: Response, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxBytes) throw new ResponseError("too_large");
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
