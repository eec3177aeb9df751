import { systemClock } from "../lib/clock.ts";
import { withinDeadline } from "../lib/deadline.ts";
import { RedisError } from "./transport.ts";

/** Longest response that is waited for, in characters: a greeting, or an error. */
const MAX_REPLY_LENGTH = 4_096;

/**
 * Why a Redis can't be connected to. Bun's client says the same of a wrong password, a name that nobody knows,
 * a port that nobody listens on, and a certificate that isn't to be trusted; so the greeting is sent once more,
 * by hand. `undefined` when it works now, or says nothing in time.
 */
export async function diagnose(options: {
  url: string;
  tls?: Bun.TLSOptions | undefined;
  deadlineMs: number;
}): Promise<Error | undefined> {
  const { url, tls, deadlineMs } = options;
  const { protocol, hostname, port, username, password } = new URL(url);
  const isEncrypted = protocol === "rediss:" || protocol === "valkeys:";
  const found = Promise.withResolvers<Error | undefined>();
  let reply = "";

  function greet(socket: Bun.Socket): void {
    const user = decodeURIComponent(username) || "default";
    const credential = password === "" ? [] : ["AUTH", user, decodeURIComponent(password)];
    socket.write(toCommand(["HELLO", "3", ...credential]));
  }

  const connecting = Bun.connect({
    hostname: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port || 6379),
    ...(isEncrypted && { tls: tls ?? true }),
    socket: {
      open(socket) {
        if (!isEncrypted) greet(socket);
      },
      handshake(socket, isTrusted, error) {
        if (isTrusted) greet(socket);
        else found.resolve(error ?? undefined);
      },
      data(_, bytes) {
        reply += bytes.toString("latin1");
        if (!reply.includes("\r\n") && reply.length < MAX_REPLY_LENGTH) return;
        const refusal = /^-(.*)/.exec(reply)?.[1];
        found.resolve(refusal === undefined ? undefined : new RedisError(refusal));
      },
      close: () => found.resolve(undefined),
      connectError: (_, error) => found.resolve(error),
    },
  });
  try {
    connecting.catch((error) => found.resolve(error));
    return await withinDeadline(found.promise, deadlineMs, systemClock);
  } catch {
    return undefined;
  } finally {
    connecting.then(
      (socket) => socket.terminate(),
      () => {},
    );
  }
}

/** A command as Redis reads it (RESP). */
function toCommand(words: readonly string[]): string {
  const lines = words.flatMap((word) => [`$${Buffer.byteLength(word)}`, word]);
  return `*${words.length}\r\n${lines.join("\r\n")}\r\n`;
}
