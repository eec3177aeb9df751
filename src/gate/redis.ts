import { type Feed, FEED_LENGTH, FEED_STREAM } from "../redis/feed.ts";
import type { RedisTransport } from "../redis/transport.ts";
import { parseTicketRecord, type Revocation, type TicketStore } from "./store.ts";

/** Keys in Redis: this and the hash. */
const PREFIX = "ws-ticket:";
/** How long a user's list of unused tickets outlives the last one, in milliseconds: the longest that a ticket lives. */
const UNUSED_TTL_MS = 300_000;

/** Keeps a ticket unless its session is revoked, and notes it for a later sign-out: one step, so that none slips between. */
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

/** Revokes, drops the unused tickets that are covered, and tells every instance. */
const REVOKE = `
  local unused, revoked, feed = unpack(KEYS)
  local kind, id, session, at, untilAt, ttl, feedLength = unpack(ARGV)
  local before = redis.call('GET', revoked)
  local longest = math.max(tonumber(ttl), redis.call('PTTL', revoked))
  if not before or tonumber(before) <= tonumber(at) then redis.call('SET', revoked, at, 'PX', longest) end
  for _, entry in ipairs(redis.call('ZRANGE', unused, 0, -1)) do
    local ticket, of, issuedAt = entry:match('^(%S+) (%S+) (%S+)$')
    if of == session or session == '' and tonumber(issuedAt) <= tonumber(at) then
      redis.call('DEL', ticket)
      redis.call('ZREM', unused, entry)
    end
  end
  redis.call('XADD', feed, 'MAXLEN', '~', feedLength, '*', 'kind', 'revoked', 'of', kind, 'id', id,
    'session', session, 'at', at, 'until', untilAt)
  return 1
`;

/**
 * Tickets in a Redis (6.2 or newer, or Valkey) that several servers share, over either transport. `feed`:
 * how this server hears what others revoke; one that opens no sockets needs none.
 */
export function redisTicketStore(transport: RedisTransport, feed?: Feed): TicketStore {
  return {
    async put(hash, record, ttlMs) {
      const { user, session, issuedAtMs } = record;
      const keys = [
        PREFIX + hash,
        unusedKey(user),
        sessionKey(session),
        everythingKey("user", user),
      ];
      const kept = await transport.command([
        ...["EVAL", PUT, String(keys.length), ...keys],
        ...[JSON.stringify(record), String(ttlMs), session, String(issuedAtMs)],
        String(UNUSED_TTL_MS),
      ]);
      if (kept !== 1 && kept !== 0)
        throw new Error("Redis broke off: no outcome of keeping a ticket");
      return kept === 1;
    },
    async take(hash) {
      const reply = await transport.command(["GETDEL", PREFIX + hash]);
      if (reply === null) return undefined;
      if (typeof reply !== "string") throw new Error("Redis broke off: reply to GETDEL isn't text");
      return parseTicketRecord(reply);
    },
    async revoke({ kind, id, session, atMs, untilMs }) {
      const revoked = session === undefined ? everythingKey(kind, id) : sessionKey(session);
      const keys = [unusedKey(kind === "user" ? id : ""), revoked, FEED_STREAM];
      await transport.command([
        ...["EVAL", REVOKE, String(keys.length), ...keys],
        ...[kind, id, session ?? "", String(atMs), String(untilMs)],
        ...[String(Math.max(1, untilMs - atMs)), String(FEED_LENGTH)],
      ]);
      feed?.wake();
    },
    async isRevoked({ kind, id, session = "", issuedAtMs }) {
      const [ofSession, cutoff] = (await transport.command([
        ...["MGET", sessionKey(session), everythingKey(kind, id)],
      ])) as (string | null)[];
      return ofSession != null || (cutoff != null && issuedAtMs <= Number(cutoff));
    },
    watch(onRevoked) {
      feed?.on("revoked", ({ of, id = "", session, at, until }) => {
        const kind = of as Revocation["kind"];
        const revocation = { kind, id, atMs: Number(at), untilMs: Number(until) };
        onRevoked(session ? { ...revocation, session } : revocation);
      });
    },
    close: () => transport.close(),
  };
}

function sessionKey(session: string): string {
  return `${PREFIX}revoked:session:${session}`;
}

function everythingKey(kind: Revocation["kind"], id: string): string {
  return `${PREFIX}revoked:${kind}:${id}`;
}

function unusedKey(user: string): string {
  return `${PREFIX}unused:${user}`;
}
