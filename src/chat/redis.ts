import type { Clock } from "../lib/clock.ts";
import { utf8 } from "../lib/encoding.ts";
import { type Feed, FEED_LENGTH, FEED_STREAM } from "../redis/feed.ts";
import { RedisError, type RedisReply, type RedisTransport } from "../redis/transport.ts";
import { createBatcher } from "../lib/batch.ts";
import {
  type Appended,
  type ChatLog,
  type ChatSummary,
  DEFAULT_RETENTION,
  type Draft,
  MAX_UNKNOWN_RECIPIENTS,
  REF_TTL_MS,
  type Retention,
  type Side,
  toMessage,
} from "./history.ts";
import type { Chat, Message } from "../wire/frames.ts";

const PREFIX = "ws-ticket:chat:";
const SEQUENCE = `${PREFIX}sequence`;
const USERS = `${PREFIX}users`;

/** How often a chat's life is prolonged and its old messages are thrown out on the way, in milliseconds. */
const TOUCH_MS = 3_600_000;
/** Text in one script, and in one entry of the feed, about; in UTF-16 code units. */
const MAX_BATCH_LENGTH = 64_000;
/** Scripts on their way at once, so that Redis works on one while this process makes the next. */
const LANES = 6;
/** What a message takes beside its content. */
const ENVELOPE_LENGTH = 250;

/** Throws out a chat's messages that are too old. Ids rise with time: the first young one ends them. */
const DROP_OLD = `
  local function dropOld(messages, oldest)
    local first = redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
    while first and tonumber(first[2][2]) < tonumber(oldest) do
      redis.call('XDEL', messages, first[1])
      first = redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
    end
  end
`;

/**
 * Keeps messages, one after the other: one step, so that no failure leaves half of one. Six keys and
 * seven arguments for each, after those that all share.
 */
const APPEND = `
  ${DROP_OLD}
  local sequence, feed, users = unpack(KEYS, 1, 3)
  local refTtl, maxMessages, maxAge, maxUnknown, feedLength = unpack(ARGV, 1, 5)
  local call = redis.call
  local news = {}

  local function hasTooManyUnknown(ofVisitor, user)
    if call('SISMEMBER', users, user) == 1 then return false end
    local unknown = 0
    for _, other in ipairs(call('ZRANGE', ofVisitor, 0, -1)) do
      unknown = unknown + 1 - call('SISMEMBER', users, other)
    end
    return unknown >= tonumber(maxUnknown)
  end

  -- Ids of messages that turn out to be known or refused are left out.
  local count = (#KEYS - 3) / 6
  local firstId = call('INCRBY', sequence, count) - count + 1

  local function append(n)
    local messages, chat, ref, ofUser, ofVisitor, blocked = unpack(KEYS, 4 + n * 6, 9 + n * 6)
    local side, user, visitor, nickname, at, hasRef, body = unpack(ARGV, 6 + n * 7, 12 + n * 7)
    local byVisitor = side == 'visitor'
    local state = call('HMGET', chat, 'touched', 'blocked')
    local touched = state[1]
    local isBlocked = touched and state[2] or tostring(call('SISMEMBER', blocked, visitor))
    local refused
    if byVisitor then
      if isBlocked == '1' then
        refused = 'blocked'
      elseif not touched and hasTooManyUnknown(ofVisitor, user) then
        refused = 'too_many_recipients'
      end
    end
    local id = string.format('%d', firstId + n)
    local kept = id .. ' ' .. at
    if hasRef == '1' then
      if refused then return call('GET', ref) or refused end
      if not call('SET', ref, kept, 'NX', 'PX', refTtl) then return call('GET', ref) end
    elseif refused then
      return refused
    end
    if maxMessages == '0' then
      call('XADD', messages, id .. '-0', 'at', at, 'body', body)
    else
      call('XADD', messages, 'MAXLEN', maxMessages, id .. '-0', 'at', at, 'body', body)
    end
    call('HINCRBY', chat, byVisitor and 'unread:user' or 'unread:visitor', 1)
    if byVisitor and nickname ~= '' then call('HSET', chat, 'nickname', nickname) end
    call('ZADD', ofUser, id, visitor)
    call('ZADD', ofVisitor, id, user)
    if not touched or at - touched > ${TOUCH_MS} then
      call('HSET', chat, 'touched', at, 'blocked', isBlocked)
      if maxAge ~= '0' then
        dropOld(messages, at - maxAge)
        for _, key in ipairs({messages, chat, ofUser, ofVisitor}) do
          call('PEXPIRE', key, maxAge + ${TOUCH_MS})
        end
      end
    end
    news[#news + 1] = '{"id":"' .. id .. '",' .. body
    return kept
  end

  local outcomes = {}
  for n = 0, count - 1 do
    outcomes[n + 1] = append(n)
  end
  if #news > 0 then
    call('XADD', feed, 'MAXLEN', '~', feedLength, '*', 'kind', 'messages',
      'frames', table.concat(news, '\\n'))
  end
  return outcomes
`;

/** Blocks or not: for good in the user's set, and at hand where the chat is. */
const SET_BLOCKED = `
  local chat, blocked = unpack(KEYS)
  local visitor, value = unpack(ARGV)
  redis.call(value == '1' and 'SADD' or 'SREM', blocked, visitor)
  if redis.call('EXISTS', chat) == 1 then redis.call('HSET', chat, 'blocked', value) end
  return 1
`;

const MARK_READ = `
  local messages, chat, feed = unpack(KEYS)
  local by, user, visitor, feedLength = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  if not newest then return false end
  local last = newest[1]:match('^%d+')
  if redis.call('HGET', chat, 'read:' .. by) ~= last then
    redis.call('HSET', chat, 'read:' .. by, last, 'unread:' .. by, 0)
    redis.call('XADD', feed, 'MAXLEN', '~', feedLength, '*', 'kind', 'read', 'user', user, 'visitor', visitor,
      'by', by, 'upTo', last)
  end
  return last
`;

/** A page of somebody's chats; those that have expired leave the index on the way. */
const LIST = `
  ${DROP_OLD}
  local index, blocked = unpack(KEYS)
  local before, limit, prefix, side, own, oldest = unpack(ARGV)
  local chats = {}
  for _, peer in ipairs(redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'LIMIT', 0, limit)) do
    local name = side == 'user' and peer .. ':' .. own or own .. ':' .. peer
    dropOld(prefix .. 'messages:' .. name, oldest)
    local last = redis.call('XREVRANGE', prefix .. 'messages:' .. name, '+', '-', 'COUNT', 1)[1]
    if last then
      local unread = tonumber(redis.call('HGET', prefix .. 'chat:' .. name, 'unread:' .. side) or 0)
      table.insert(chats, {
        peer,
        math.min(unread, redis.call('XLEN', prefix .. 'messages:' .. name)),
        redis.call('HGET', prefix .. 'chat:' .. name, 'nickname') or '',
        side == 'user' and redis.call('SISMEMBER', blocked, peer) or 0,
        last
      })
    else
      redis.call('ZREM', index, peer)
    end
  end
  return chats
`;

const PAGE = `
  ${DROP_OLD}
  local messages, chat = unpack(KEYS)
  local command, first, last, limit, oldest = unpack(ARGV)
  if redis.call('EXISTS', chat) == 0 then return false end
  dropOld(messages, oldest)
  local read = redis.call('HMGET', chat, 'read:user', 'read:visitor')
  return {redis.call(command, messages, first, last, 'COUNT', limit), read[1] or '0', read[2] or '0'}
`;

const REMOVE = `
  local messages, chat, ofUser, ofVisitor = unpack(KEYS)
  redis.call('ZREM', ofUser, ARGV[2])
  redis.call('ZREM', ofVisitor, ARGV[1])
  redis.call('DEL', messages)
  return redis.call('DEL', chat)
`;

/**
 * Chats in a Redis that several servers share. Every write is one script; what is to be told goes through
 * the feed.
 */
export function redisChatLog(options: {
  transport: RedisTransport;
  /** How this server hears what is kept by others; one that opens no sockets needs none. */
  feed?: Feed | undefined;
  clock: Clock;
  retention?: Partial<Retention> | undefined;
}): ChatLog {
  const { transport, feed, clock } = options;
  const { maxMessages, maxAgeMs } = { ...DEFAULT_RETENTION, ...options.retention };
  const run = createScripts(transport);
  const met = new Set<string>();

  function oldestMs(): number {
    return maxAgeMs === 0 ? 0 : clock.nowMs() - maxAgeMs;
  }

  /** What comes first stays first: only a transport that keeps the order has more than one batch under way. */
  const appends = createBatcher<Draft, Appended>(
    async (drafts) => {
      const outcomes = (await run(
        APPEND,
        [SEQUENCE, FEED_STREAM, USERS, ...drafts.flatMap(keysOf)],
        [
          ...[REF_TTL_MS, maxMessages, maxAgeMs, MAX_UNKNOWN_RECIPIENTS, FEED_LENGTH],
          ...drafts.flatMap(argumentsOf),
        ],
      )) as string[];
      feed?.wake();
      return outcomes.map(toAppended);
    },
    {
      weigh: ({ content }) => content.length + ENVELOPE_LENGTH,
      maxWeight: MAX_BATCH_LENGTH,
      lanes: transport.isOrdered ? LANES : 1,
    },
  );

  return {
    start(deliver) {
      feed?.on("messages", ({ frames = "" }) => {
        for (const frame of frames.split("\n")) {
          const message: Message = JSON.parse(frame);
          deliver({ kind: "message", chat: chatOf(message), message, frame });
        }
      });
      feed?.on("read", ({ user = "", visitor = "", by, upTo = "" }) => {
        deliver({ kind: "read", chat: { user, visitor }, by: by as Side, upTo });
      });
    },
    append: (draft) => appends.add(draft),
    async markRead(chat, by) {
      const { user, visitor } = chat;
      const upTo = await run(
        MARK_READ,
        [messagesKey(chat), chatKey(chat), FEED_STREAM],
        [by, user, visitor, FEED_LENGTH],
      );
      feed?.wake();
      return typeof upTo === "string" ? upTo : undefined;
    },
    async chats({ side, id }, { beforeId, limit }) {
      const reply = await run(
        LIST,
        [indexKey(side, id), blockedKey(id)],
        [beforeId === undefined ? "+inf" : `(${beforeId}`, limit, PREFIX, side, id, oldestMs()],
      );
      const rows = reply as unknown as [string, number, string, number, StreamEntry][];
      return rows.map(([peer, unread, nickname, blocked, last]): ChatSummary => {
        const { nickname: _, ...lastMessage } = fromStream(last);
        return {
          ...{ peer, unread },
          ...(nickname !== "" && { nickname }),
          ...(side === "user" && { blocked: blocked === 1 }),
          lastMessage,
        };
      });
    },
    async messages(chat, { afterId = "0", beforeId, limit }) {
      const range =
        beforeId === undefined
          ? ["XRANGE", `(${afterId}-0`, "+"]
          : ["XREVRANGE", String(Math.max(0, Number(beforeId) - 1)), "-"];
      const reply = await run(
        PAGE,
        [messagesKey(chat), chatKey(chat)],
        [...range, limit, oldestMs()],
      );
      if (!reply) return undefined;
      const [entries, user, visitor] = reply as unknown as [StreamEntry[], string, string];
      const messages = entries.map(fromStream);
      if (beforeId !== undefined) messages.reverse();
      return { messages, readUpTo: { user, visitor } };
    },
    async remove(chat) {
      const { user, visitor } = chat;
      const keys = [messagesKey(chat), chatKey(chat)];
      const indexes = [indexKey("user", user), indexKey("visitor", visitor)];
      return (await run(REMOVE, [...keys, ...indexes], [user, visitor])) === 1;
    },
    async setBlocked(chat, blocked) {
      const keys = [chatKey(chat), blockedKey(chat.user)];
      await run(SET_BLOCKED, keys, [chat.visitor, blocked ? 1 : 0]);
    },
    async meet(user) {
      if (met.has(user)) return;
      await transport.command(["SADD", USERS, user]);
      if (met.size >= 10_000) met.clear();
      met.add(user);
    },
    close: () => transport.close(),
  };
}

function keysOf({ chat, from, ref }: Draft): string[] {
  const { user, visitor } = chat;
  return [
    ...[messagesKey(chat), chatKey(chat)],
    `${PREFIX}ref:${visitor}:${from}:${JSON.stringify([user, ref])}`,
    ...[indexKey("user", user), indexKey("visitor", visitor), blockedKey(user)],
  ];
}

function argumentsOf(draft: Draft): (string | number)[] {
  const { chat, from, nickname = "", ref, atMs } = draft;
  const { id: _, ...message } = toMessage(chat, { ...draft, id: "" });
  // Without the brace before the id, which Redis makes.
  const body = JSON.stringify(message).slice(1);
  return [from, chat.user, chat.visitor, nickname, atMs, ref === undefined ? 0 : 1, body];
}

function toAppended(outcome: string): Appended {
  if (outcome === "blocked" || outcome === "too_many_recipients")
    return { ok: false, error: outcome };
  const [id = "", atMs] = outcome.split(" ");
  return { ok: true, id, atMs: Number(atMs) };
}

/** A chat's part of a key: the visitor first, whose id has a fixed length, so that no two chats share one. */
function nameOf({ user, visitor }: Chat): string {
  return `${visitor}:${user}`;
}

function messagesKey(chat: Chat): string {
  return `${PREFIX}messages:${nameOf(chat)}`;
}

function chatKey(chat: Chat): string {
  return `${PREFIX}chat:${nameOf(chat)}`;
}

function indexKey(side: Side, id: string): string {
  return `${PREFIX}of-${side}:${id}`;
}

function blockedKey(user: string): string {
  return `${PREFIX}blocked:${user}`;
}

/** A message in its chat's stream: its time, and all of it but the id. */
type StreamEntry = readonly [id: string, fields: readonly [at: "at", string, body: "body", string]];

function fromStream([id, [, , , body]]: StreamEntry): Message {
  return JSON.parse(`{"id":"${id.split("-")[0]}",${body}`);
}

function chatOf({ type, from, to, chatId }: Message): Chat {
  return { user: type === "ANON_TO_USER" ? to : from, visitor: chatId };
}

/**
 * Runs scripts. Over HTTP by their hash, the text only when Redis doesn't have it; over a connection of our
 * own by their text, which costs little there.
 */
function createScripts(
  transport: RedisTransport,
): (
  source: string,
  keys: readonly string[],
  args: readonly (string | number)[],
) => Promise<RedisReply> {
  const hashes = new Map<string, Promise<string>>();
  return async (source, keys, args) => {
    const rest = [String(keys.length), ...keys, ...args.map(String)];
    // Several are under way: what comes behind one that has to be repeated would overtake it.
    if (transport.isOrdered) return transport.command(["EVAL", source, ...rest]);
    const hash = hashes.get(source) ?? sha1Hex(source);
    hashes.set(source, hash);
    try {
      return await transport.command(["EVALSHA", await hash, ...rest]);
    } catch (error) {
      // Redis doesn't have the script, and so has run nothing: the one failure after which to try again.
      if (!(error instanceof RedisError && error.code === "NOSCRIPT")) throw error;
    }
    return transport.command(["EVAL", source, ...rest]);
  };
}

/** What Redis calls a script. */
async function sha1Hex(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-1", utf8(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
