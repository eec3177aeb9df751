import { requireWhole } from "../gate/options.ts";
import type { Clock } from "../lib/clock.ts";
import { createRateLimit } from "../lib/limit.ts";
import { maxOpenFiles } from "./files.ts";

/** What sockets may do. 0 switches a limit off, except `maxSockets` and `maxMessageBytes`. */
export interface SocketLimits {
  /** Open at once, all together. Default: 80 % of the files that the process may have open. */
  readonly maxSockets: number;
  /** Open at once per user or visitor. Default 20. */
  readonly maxPerIdentity: number;
  /** Open at once per address (IPv6: per /64), loopback excepted. Default: a quarter of `maxSockets`. */
  readonly maxPerAddress: number;
  /**
   * Per user or visitor, over all their sockets, with a burst of as many. Default 20. All at one address may send twenty
   * times as many, loopback excepted; beyond it who sends more than three fifths of theirs at once, and then a quarter, is ended.
   */
  readonly messagesPerSecond: number;
  /** Default 16,384. */
  readonly maxMessageBytes: number;
}

/** Share of the descriptor limit for sockets: at the limit itself accepting connections would spin. */
const SOCKET_SHARE = 0.8;
/** Share of all sockets that one address may have. */
const ADDRESS_SHARE = 0.25;
const MANY = 10_000_000;
/** Identities' worth of messages that all sockets of an address may send, loopback excepted. */
const IDENTITIES_PER_ADDRESS = 20;
/** Length that makes a message count once more for its address; a longest one counts nine times at most. */
const LENGTH_PER_MESSAGE = 2_000;
const MOST_PER_MESSAGE = 8;
/** What somebody may send whatever others at the address do: three fifths of theirs at once, and then a quarter a second. */
const MODEST_SHARE = 0.6;
const MODEST_MS = 2_500;

/** The limits with their defaults. Throws a `TypeError` or `RangeError` that names the limit. */
export function readLimits(limits: Partial<SocketLimits> = {}): SocketLimits {
  const maxSockets = limits.maxSockets ?? Math.floor(maxOpenFiles() * SOCKET_SHARE);
  const whole = (name: keyof SocketLimits, value: number, least: number) =>
    requireWhole(value, `limits.${name}`, { least, most: MANY });
  return {
    maxSockets: whole("maxSockets", maxSockets, 1),
    maxPerIdentity: whole("maxPerIdentity", limits.maxPerIdentity ?? 20, 0),
    maxPerAddress: whole(
      "maxPerAddress",
      limits.maxPerAddress ?? Math.ceil(maxSockets * ADDRESS_SHARE),
      0,
    ),
    messagesPerSecond: whole("messagesPerSecond", limits.messagesPerSecond ?? 20, 0),
    maxMessageBytes: requireWhole(limits.maxMessageBytes ?? 16_384, "limits.maxMessageBytes", {
      least: 128,
      most: 16 * 1024 * 1024,
    }),
  };
}

/** Whether somebody may send one more message of this length, by what they and all at their address have sent. */
export function createMessageLimit(
  { messagesPerSecond, maxMessageBytes }: SocketLimits,
  clock: Clock,
): (sender: { key: string; limitKey: string | undefined }, length: number) => boolean {
  const limitOf = (allowed: number, windowMs = 1_000) =>
    createRateLimit<string>({ allowed, windowMs, clock });
  const messages = limitOf(messagesPerSecond);
  const ofAddress = limitOf(messagesPerSecond * IDENTITIES_PER_ADDRESS);
  const modest = limitOf(messagesPerSecond * MODEST_SHARE, MODEST_MS);
  const lengthPerMessage = Math.max(LENGTH_PER_MESSAGE, maxMessageBytes / MOST_PER_MESSAGE);

  return ({ key, limitKey }, length) => {
    if (messages.take(key) > 0) return false;
    if (limitKey === undefined) return true;
    const cost = 1 + length / lengthPerMessage;
    // Whoever sends little isn't to blame for what others at the address send.
    const isModest = modest.take(key, cost) === 0;
    return ofAddress.take(limitKey, cost) === 0 || isModest;
  };
}
