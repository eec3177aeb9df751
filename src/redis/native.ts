import { DEPENDENCY_DEADLINE_MS, DeadlineError, withinDeadline } from "../lib/deadline.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/**
 * Redis over Bun's own client. `url` as in `redis://user:password@host:6379/0` or `rediss://`. Rejects when
 * there is no good reply within `deadlineMs`, the time to connect included.
 *
 * It connects when a command needs it, and gives a connection up at the first sign of trouble: Bun's client
 * has no deadline for commands, queues them while it is away, and after its last retry stays away for good.
 */
export function nativeRedisTransport(options: {
  url: string;
  deadlineMs?: number;
  tls?: Bun.TLSOptions;
}): RedisTransport {
  const { url, deadlineMs = DEPENDENCY_DEADLINE_MS, tls } = options;
  let connection: Promise<Bun.RedisClient> | undefined;
  let closed = false;

  function connect(): Promise<Bun.RedisClient> {
    const client = new Bun.RedisClient(url, {
      autoReconnect: false,
      connectionTimeout: deadlineMs,
      enableOfflineQueue: false,
      ...(tls && { tls }),
    });
    const opening = client.connect().then(() => client);
    connection = opening;
    client.onclose = () => giveUp(opening);
    opening.catch(() => giveUp(opening));
    return opening;
  }

  /** The next command makes a new connection; whatever still waits on this one rejects, its outcome unknown. */
  function giveUp(failed: Promise<Bun.RedisClient>): void {
    if (connection === failed) connection = undefined;
    failed.then(
      (client) => client.close(),
      () => {},
    );
  }

  return {
    isOrdered: true,
    async command(args) {
      if (closed) throw new Error("Redis transport is closed");
      const [name = "", ...rest] = args;
      const current = connection ?? connect();
      let late = false;
      try {
        return await withinDeadline(
          current.then((client) => {
            // Nobody waits any longer: what hasn't been sent yet never is.
            if (late) throw new DeadlineError("Connected too late");
            return client.send(name, rest).then(toResp2);
          }),
          deadlineMs,
        );
      } catch (error) {
        late = true;
        const { code, message } = error as { code?: string; message: string };
        if (code === "ERR_REDIS_SERVER_ERROR") throw new RedisError(message);
        giveUp(current);
        throw error;
      }
    },
    async close() {
      closed = true;
      if (connection) giveUp(connection);
    },
  };
}

/** Bun speaks RESP3, where maps are objects and truth is a boolean. */
function toResp2(reply: unknown): RedisReply {
  if (Array.isArray(reply)) return reply.map(toResp2);
  if (typeof reply === "boolean") return reply ? 1 : 0;
  if (typeof reply === "string" || typeof reply === "number") return reply;
  if (reply === null || reply === undefined) return null;
  return Object.entries(reply).flatMap(([key, value]) => [key, toResp2(value)]);
}
