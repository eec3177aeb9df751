/** Longest wait that a server's `Retry-After` can ask for, in milliseconds. */
const MAX_RETRY_AFTER_MS = 3_600_000;

/**
 * Why a connection was lost, an attempt failed or a request was refused. `code` is the close code of a socket
 * (1000–4999), the status of an answer (100–599), or 0 where nothing answered.
 */
export class Failure extends Error {
  /** The name of the class. */
  override readonly name = "Failure";
  /** A close code, a status, or 0. */
  readonly code: number;
  /** The server's word for it, such as `token_invalid`; never shown to anybody as it is. */
  readonly reason: string;
  /** How long the server wants to be left alone. */
  readonly retryAfterMs: number;

  /** A failure with its code and reason. */
  constructor(
    code: number,
    reason: string,
    options: ErrorOptions & { retryAfterMs?: number } = {},
  ) {
    super(`${reason || "Connection lost"}: ${code}`, options);
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }

  /** A failure as it is; anything else that was thrown means that nothing answered. */
  static from(error: unknown): Failure {
    return error instanceof Failure ? error : new Failure(0, "unreachable", { cause: error });
  }

  /** What an answer that isn't a success says: its status, the `code` of its problem (RFC 9457), its `Retry-After`. */
  static async of(response: Response, nowMs: number): Promise<Failure> {
    const problem: { code?: unknown } | null = await response.json().catch(() => null);
    const retryAfter = response.headers.get("retry-after") ?? "";
    const askedMs = Number(retryAfter) * 1000 || Date.parse(retryAfter) - nowMs;
    return new Failure(response.status, String(problem?.code ?? "refused"), {
      retryAfterMs: Math.min(Math.max(askedMs || 0, 0), MAX_RETRY_AFTER_MS),
    });
  }
}
