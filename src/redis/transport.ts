/** A reply of Redis, in RESP2's shapes. */
export type RedisReply = string | number | null | readonly RedisReply[];

/**
 * A connection to one Redis. A command is sent at most once: a lost reply is a rejection with an unknown
 * outcome, never a repetition.
 *
 * @example
 * // Over ioredis, which repeats commands by default.
 * const client = new Redis(url, { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false });
 * client.on("error", () => {});
 * const transport: RedisTransport = {
 *   isOrdered: true,
 *   command: ([name = "", ...args]) => client.call(name, ...args) as Promise<RedisReply>,
 *   close: async () => client.disconnect(),
 * };
 */
export interface RedisTransport {
  /** Whether commands run in the order in which they were sent. */
  readonly isOrdered: boolean;
  /** Sends one command. Rejects when it failed or no reply came in time. */
  command(args: readonly string[]): Promise<RedisReply>;
  /** Closes the connection. */
  close(): Promise<void>;
}

/** An ACL that refuses what a script does: of Redis 6, and of Redis 7. */
const DENIED_IN_SCRIPT = /user executing the script can't|ACL failure in script/;

/** Redis refused a command. `code` is the first word of its error (`NOAUTH`, `READONLY`, `OOM`); no argument is kept. */
export class RedisError extends Error {
  override name = "RedisError";
  readonly code: string;
  constructor(message: string) {
    const word = /^[A-Z]{2,20}\b/.exec(message)?.[0] ?? "REFUSED";
    const code = word === "ERR" && DENIED_IN_SCRIPT.test(message) ? "NOPERM" : word;
    super(`Redis refused a command: ${code}`);
    this.code = code;
  }
}
