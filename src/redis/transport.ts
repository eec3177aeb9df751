/** What Redis answers, in RESP2's shapes. */
export type RedisReply = string | number | null | readonly RedisReply[];

/**
 * One Redis, however it is reached. A command goes over the wire once at most: a lost reply is a rejection
 * with an unknown outcome, never a repetition.
 */
export interface RedisTransport {
  /** Whether commands are carried out in the order in which they were sent. */
  readonly isOrdered: boolean;
  /** Sends one command; rejects when it failed or no reply came within the transport's deadline. */
  command(args: readonly string[]): Promise<RedisReply>;
  close(): Promise<void>;
}

/** Redis refused a command. `code` is the first word of its error (`NOAUTH`, `READONLY`, `OOM`); no argument is kept. */
export class RedisError extends Error {
  override name = "RedisError";
  readonly code: string;
  constructor(message: string) {
    const code = /^[A-Z]{2,20}\b/.exec(message)?.[0] ?? "REFUSED";
    super(`Redis refused a command: ${code}`);
    this.code = code;
  }
}
