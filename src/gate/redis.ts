import { sha256Hex } from "../lib/encoding.ts";
import { ADD_TO_FEED, type Feed } from "../redis/feed.ts";
import { feedKeys, requirePrefix } from "../redis/keys.ts";
import { createScriptRunner } from "../redis/script.ts";
import { SPEND } from "../redis/spend.ts";
import type { RedisTransport } from "../redis/transport.ts";
import { earliestIssueMs, type Identity, identityKey } from "./identity.ts";
import {
  parseTicketRecord,
  type Revocation,
  type RevocationFeed,
  type TicketStore,
} from "./store.ts";

/** A user's list of unused tickets outlives the last one by this much, in milliseconds: the longest life of a ticket. */
const UNUSED_TTL_MS = 300_000;
/** Stands for the session of a credential that has none; no hash is written like this. */
const NO_SESSION = "-";

/** Stores a ticket unless its credential is revoked, and lists it for a later revocation: one step, so that none slips between. */
const PUT = `
  local ticket, unused, session, everything = unpack(KEYS)
  local record, ttl, id, issuedAt, unusedTtl = unpack(ARGV)
  if redis.call('EXISTS', session) == 1 then return 0 end
  local cutoff = redis.call('GET', everything)
  if cutoff and tonumber(issuedAt) <= tonumber(cutoff) then return 0 end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('SET', ticket, record, 'PX', ttl)
  redis.call('ZREMRANGEBYSCORE', unused, '-inf', now)
  redis.call('ZADD', unused, now + ttl, ticket .. ' ' .. id .. ' ' .. issuedAt)
  redis.call('PEXPIRE', unused, unusedTtl)
  return 1
`;

/**
 * Revokes, deletes the unused tickets that are covered, and notifies every instance. A repeated revocation never
 * shortens the first, and notifies no one when it changes nothing.
 */
const REVOKE = `
  ${ADD_TO_FEED}
  local unused, revoked, feed, feedState = unpack(KEYS)
  local kind, id, session, hash, at, untilAt, ttl = unpack(ARGV)
  local before = redis.call('GET', revoked)
  local longest = math.max(tonumber(ttl), redis.call('PTTL', revoked))
  if before then at = math.max(tonumber(before), tonumber(at)) end
  redis.call('SET', revoked, string.format('%.0f', at), 'PX', longest)
  for _, entry in ipairs(redis.call('ZRANGE', unused, 0, -1)) do
    local ticket, of, issuedAt = entry:match('^(%S+) (%S+) (%S+)$')
    if of == hash or hash == '${NO_SESSION}' and tonumber(issuedAt) <= tonumber(at) then
      redis.call('DEL', ticket)
      redis.call('ZREM', unused, entry)
    end
  end
  if before and session ~= '' then return 1 end
  addToFeed(feed, feedState, 'kind', 'revoked', 'of', kind, 'id', id,
    'session', session, 'at', string.format('%.0f', at), 'until', untilAt)
  return 1
`;

/**
 * Tickets in a Redis (6.2 or newer, or Valkey) that several processes share, over a transport that is closed
 * with the store. For issuing and redeeming, in a function for example: `createSockets` refuses this store,
 * since it doesn't receive the sign-outs of other processes. `openRedis` of `ws-ticket/bun` makes one that does.
 * `prefix`: start of every key, by default `ws-ticket:`.
 *
 * @example
 * const store = redisTicketStore(upstashTransport({ url, token }));
 * const gate = createGate({ users: { secret }, store });
 */
export function redisTicketStore(
  transport: RedisTransport,
  { prefix }: { readonly prefix?: string | undefined } = {},
): TicketStore {
  return sharedTicketStore({ transport, feed: undefined, prefix });
}

/** The same with the feed through which other processes' revocations arrive; closed with the store. */
export function sharedTicketStore(options: {
  transport: RedisTransport;
  feed: Feed | undefined;
  prefix?: string | undefined;
}): TicketStore {
  const { transport, feed } = options;
  const prefix = requirePrefix(options.prefix);
  const run = createScriptRunner(transport);

  const sessionKey = (hash: string) => `${prefix}revoked:session:${hash}`;
  const everythingKey = (identity: Pick<Revocation, "kind" | "id">) =>
    `${prefix}revoked:${identityKey(identity)}`;
  const unusedKey = (user: string) => `${prefix}unused:${user}`;

  return {
    revocations: feed ? revocationsOf(feed) : "unavailable",
    async put(hash, record, ttlMs) {
      const { identity } = record;
      const session = await sessionHash(identity);
      const kept = await run(
        PUT,
        [prefix + hash, unusedKey(identity.id), sessionKey(session), everythingKey(identity)],
        [JSON.stringify(record), ttlMs, session, earliestIssueMs(identity), UNUSED_TTL_MS],
      );
      if (kept !== 1 && kept !== 0)
        throw new Error("Redis broke off: no outcome of storing a ticket");
      return kept === 1;
    },
    async take(hash) {
      const reply = await transport.command(["GETDEL", prefix + hash]);
      if (reply === null) return undefined;
      if (typeof reply !== "string") throw new Error("Redis broke off: reply to GETDEL isn't text");
      return parseTicketRecord(reply);
    },
    async revoke(revocation) {
      const { kind, id, session, atMs, untilMs } = revocation;
      const hash = await sessionHash(revocation);
      const revoked = session === undefined ? everythingKey(revocation) : sessionKey(hash);
      const ttlMs = Math.max(1, untilMs - atMs);
      const done = await run(
        REVOKE,
        [unusedKey(kind === "user" ? id : ""), revoked, ...feedKeys(prefix)],
        [kind, id, session ?? "", hash, atMs, untilMs, ttlMs],
      );
      if (done !== 1) throw new Error("Redis broke off: no outcome of a revocation");
      feed?.wake();
    },
    async isRevoked(identity) {
      const session = await sessionHash(identity);
      const reply = await transport.command(["MGET", sessionKey(session), everythingKey(identity)]);
      if (!Array.isArray(reply)) throw new Error("Redis broke off: reply to MGET is no list");
      const [ofSession, cutoff] = reply as (string | null)[];
      return ofSession != null || (cutoff != null && earliestIssueMs(identity) <= Number(cutoff));
    },
    async spend(key, limits) {
      const keys = limits.map(({ windowMs }) => `${prefix}spent:${windowMs}:${key}`);
      const args = limits.flatMap(({ allowed, windowMs }) => [windowMs / allowed, windowMs]);
      return Number(await run(SPEND, keys, args));
    },
    async close() {
      await feed?.close();
      await transport.close();
    },
  };
}

function revocationsOf(feed: Feed): RevocationFeed {
  return {
    subscribe({ onRevoked, onGap, isNeeded }) {
      feed.on("revoked", ({ of, id = "", session, at, until }) => {
        const kind = of === "user" ? "user" : "visitor";
        const revocation = { kind, id, atMs: Number(at), untilMs: Number(until) } as const;
        onRevoked(session ? { ...revocation, session } : revocation);
      });
      feed.start({ isNeeded, onGap });
    },
    ready: () => feed.ready(),
    get isFailing() {
      return feed.isFailing;
    },
    get lagMs() {
      return feed.lagMs;
    },
  };
}

/** Names a user's session in keys: sessions may be named like anything. */
function sessionHash({ id, session }: Pick<Identity, "id" | "session">): string | Promise<string> {
  return session === undefined ? NO_SESSION : sha256Hex(JSON.stringify([id, session]));
}
