/** A dependency gave an answer that can't be used. The message carries nothing of it. */
export class AnswerError extends Error {
  override name = "AnswerError";
  readonly code: string;
  constructor(code: string) {
    super(`Unusable answer: ${code}`);
    this.code = code;
  }
}

/**
 * One HTTP request to a dependency, for its JSON: sent once, never redirected, done within `deadlineMs`,
 * and never more than `maxBytes` read. Rejects otherwise.
 */
export async function fetchJson(
  url: string | URL,
  options: RequestInit & { deadlineMs: number; maxBytes: number },
): Promise<{ status: number; body: unknown }> {
  const { deadlineMs, maxBytes, ...init } = options;
  const response = await fetch(url, {
    ...init,
    redirect: "manual",
    signal: AbortSignal.timeout(deadlineMs),
  });
  const text = await readText(response, maxBytes);
  if (response.status >= 300 && response.status < 400) throw new AnswerError("redirected");
  try {
    return { status: response.status, body: JSON.parse(text) };
  } catch {
    throw new AnswerError(`status_${response.status}_not_json`);
  }
}

async function readText(response: Response, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxBytes) throw new AnswerError("too_large");
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
