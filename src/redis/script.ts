import { utf8 } from "../lib/encoding.ts";
import { RedisError, type RedisReply, type RedisTransport } from "./transport.ts";

/** Runs a Lua script: one step, so that no failure leaves half of it. */
export type RunScript = (
  source: string,
  keys: readonly string[],
  args: readonly (string | number)[],
) => Promise<RedisReply>;

/**
 * Runs scripts over a transport. By hash where each command is a request of its own, with the text sent only
 * when Redis doesn't have it; by text on a connection that keeps commands in order, since a command behind
 * a repeated one would overtake it.
 */
export function createScriptRunner(transport: RedisTransport): RunScript {
  const hashes = new Map<string, Promise<string>>();
  return async (source, keys, args) => {
    const rest = [String(keys.length), ...keys, ...args.map(String)];
    if (transport.isOrdered) return transport.command(["EVAL", source, ...rest]);
    const hash = hashes.get(source) ?? sha1Hex(source);
    hashes.set(source, hash);
    try {
      return await transport.command(["EVALSHA", await hash, ...rest]);
    } catch (error) {
      // Redis doesn't have the script, so nothing has run: the one failure that is safe to repeat.
      if (!(error instanceof RedisError && error.code === "NOSCRIPT")) throw error;
    }
    return transport.command(["EVAL", source, ...rest]);
  };
}

/** Redis' name for a script. */
async function sha1Hex(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-1", utf8(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
