import { type Clock, systemClock } from "../lib/clock.ts";
import { DEPENDENCY_DEADLINE_MS, DeadlineError, withinDeadline } from "../lib/deadline.ts";
import { diagnose } from "./diagnosis.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/** Errors of a Redis that can't serve now but another one at the same address may: a replica, or one that loads. */
const WRONG_SERVER = new Set(["READONLY", "LOADING", "MASTERDOWN"]);
/** How long one diagnosis of a failing connection is good for, in milliseconds. */
const DIAGNOSIS_MS = 30_000;

/**
 * Redis over Bun's own client. `url` as in `redis://user:password@host:6379/0` or `rediss://`. Rejects when
 * there is no good reply within `deadlineMs` (default 1,900), the time to connect included.
 *
 * Connects when a command needs it, and drops a connection at the first sign of trouble: Bun's client has no
 * deadline for commands, queues them while the server is away, and stays away for good after its last retry.
 *
 * @example
 * const store = redisTicketStore(nativeRedisTransport({ url: "redis://127.0.0.1:6379" }));
 */
export function nativeRedisTransport(options: {
  url: string;
  deadlineMs?: number;
  tls?: Bun.TLSOptions;
  clock?: Clock;
}): RedisTransport {
  const { url, deadlineMs = DEPENDENCY_DEADLINE_MS, tls, clock = systemClock } = options;
  let connection: Promise<Bun.RedisClient> | undefined;
  let diagnosis: { readonly atMs: number; readonly error: Promise<Error | undefined> } | undefined;
  let closed = false;

  function connect(): Promise<Bun.RedisClient> {
    const client = new Bun.RedisClient(url, {
      autoReconnect: false,
      connectionTimeout: deadlineMs,
      enableOfflineQueue: false,
      ...(tls && { tls }),
    });
    const opening = client.connect().then(
      () => {
        diagnosis = undefined;
        client.onclose = () => drop(opening);
        return client;
      },
      async (error) => {
        throw (await explain()) ?? error;
      },
    );
    connection = opening;
    opening.catch(() => drop(opening));
    return opening;
  }

  /** Why it can't connect: found out once in a while, and not at every attempt. */
  function explain(): Promise<Error | undefined> {
    const atMs = clock.monotonicMs();
    if (!diagnosis || atMs - diagnosis.atMs >= DIAGNOSIS_MS) {
      diagnosis = { atMs, error: diagnose({ url, tls, deadlineMs }) };
    }
    return diagnosis.error;
  }

  /** The next command makes a new connection; commands in flight on this one reject, their outcome unknown. */
  function drop(failed: Promise<Bun.RedisClient>): void {
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
      let isLate = false;
      try {
        const sent = current.then((client) => {
          // The caller has given up, so the command must not be sent any more.
          if (isLate) throw new DeadlineError("Connected too late");
          return client.send(name, rest).then(toResp2);
        });
        return await withinDeadline(sent, deadlineMs, clock);
      } catch (error) {
        isLate = true;
        const { code, message } = error as { code?: string; message: string };
        const refused = code === "ERR_REDIS_SERVER_ERROR" ? new RedisError(message) : undefined;
        if (!refused || WRONG_SERVER.has(refused.code)) drop(current);
        throw refused ?? error;
      }
    },
    async close() {
      closed = true;
      if (connection) drop(connection);
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
