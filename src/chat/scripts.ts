import { ADD_TO_FEED } from "../redis/feed.ts";
import {
  MAX_BLOCKS,
  MAX_PAGE_LENGTH,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  UNANSWERED_TTL_MS,
} from "./history.ts";

/** Start of every key of the chat's. */
export const PREFIX = "ws-ticket:chat:";

/** How often a chat's expiry is prolonged and its old messages are deleted, in milliseconds. */
const TOUCH_MS = 3_600_000;
/** Messages that one script deletes because of their age, about; the next one continues. */
const MAX_DROPPED = 20_000;

/**
 * Deletes a chat's messages that are too old. Ids rise with time, so that the first recent one is found by halving,
 * however many there are.
 */
const DROP_OLD = `
  local dropped = 0
  local function dropOld(messages, oldest)
    local function isOld(entry) return tonumber(entry[2][2]) < tonumber(oldest) end
    local first = redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
    if not first or not isOld(first) or dropped >= ${MAX_DROPPED} then return end
    local last = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
    local low = tonumber(first[1]:match('^%d+'))
    local high = tonumber(last[1]:match('^%d+')) + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      local entry = redis.call('XRANGE', messages, string.format('%.0f', middle), '+', 'COUNT', 1)[1]
      if entry and isOld(entry) then
        low = tonumber(entry[1]:match('^%d+')) + 1
      else
        high = middle
      end
    end
    dropped = dropped + redis.call('XTRIM', messages, 'MINID', string.format('%.0f', low))
  end
`;

/**
 * Stores messages, one after the other: one step, so that no failure leaves half of one. Eight keys and eight
 * arguments for each, after those that all share.
 */
export const APPEND = `
  ${ADD_TO_FEED}
  ${DROP_OLD}
  local sequence, feed, feedState = unpack(KEYS, 1, 3)
  local refTtl, maxMessages, maxAge, origin = unpack(ARGV, 1, 4)
  local call = redis.call
  local frames = {}

  -- Ids of messages that turn out to be known or refused are left out. After data was lost, ids must not be
  -- used again, so they never fall behind the time.
  local count = (#KEYS - 3) / 8
  local time = call('TIME')
  local floor = time[1] * 100000 + math.floor(time[2] / 10)
  local lastId = call('INCRBY', sequence, count)
  if lastId < floor then
    lastId = floor
    call('SET', sequence, string.format('%.0f', floor))
  end
  local firstId = lastId - count + 1

  local function append(n)
    local messages, chat, ref, ofUser, ofVisitor, blocked, unanswered, waiting = unpack(KEYS, 4 + n * 8, 11 + n * 8)
    local side, user, visitor, nickname, at, hasRef, onlyAnswered, body = unpack(ARGV, 5 + n * 8, 12 + n * 8)
    local byVisitor = side == 'visitor'
    local state = call('HMGET', chat, 'touched', 'blocked', 'answered')
    local touched, isBlocked, isAnswered = unpack(state, 1, 3)
    if not touched then isBlocked = tostring(call('SISMEMBER', blocked, visitor)) end
    local isWaiting = byVisitor and not isAnswered
    local waitingSince = isWaiting and call('ZSCORE', unanswered, user)
    if waitingSince and tonumber(waitingSince) <= at - ${UNANSWERED_TTL_MS} then waitingSince = false end
    local refused
    if byVisitor and isBlocked == '1' then
      refused = 'blocked'
    elseif isWaiting and onlyAnswered == '1' then
      refused = 'too_many_messages'
    elseif waitingSince and tonumber(call('HGET', waiting, user) or 0) >= ${MAX_UNANSWERED_MESSAGES} then
      refused = 'too_many_messages'
    elseif isWaiting and not touched and not waitingSince then
      call('ZREMRANGEBYSCORE', unanswered, '-inf', at - ${UNANSWERED_TTL_MS})
      if call('ZCARD', unanswered) >= ${MAX_UNANSWERED} then refused = 'too_many_recipients' end
    elseif not byVisitor and not touched then
      refused = 'not_found'
    end
    local id = string.format('%.0f', firstId + n)
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
    if isWaiting and waitingSince then
      call('HINCRBY', waiting, user, 1)
    elseif isWaiting then
      call('ZADD', unanswered, at, user)
      call('HSET', waiting, user, 1)
      call('PEXPIRE', unanswered, ${UNANSWERED_TTL_MS})
      call('PEXPIRE', waiting, ${UNANSWERED_TTL_MS})
    elseif not byVisitor and not isAnswered then
      call('HSET', chat, 'answered', 1)
      call('ZREM', unanswered, user)
      call('HDEL', waiting, user)
    end
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
    frames[#frames + 1] = '{"id":"' .. id .. '",' .. body
    return isWaiting and kept .. ' unanswered' or kept
  end

  local outcomes = {}
  for n = 0, count - 1 do
    outcomes[n + 1] = append(n)
  end
  if #frames > 0 then
    addToFeed(feed, feedState, 'kind', 'messages', 'origin', origin, 'frames', table.concat(frames, '\\n'))
  end
  return outcomes
`;

/** Writes a value of every kind that chats need, where none of them is. */
export const PROBE = `
  local value, stream, hash, set = unpack(KEYS)
  redis.call('SET', value, 1)
  redis.call('XADD', stream, 'MAXLEN', 1, '*', 'at', 0)
  redis.call('HSET', hash, 'at', 0)
  redis.call('ZADD', set, 0, 'at')
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 60000) end
  return 1
`;

/** Blocks or unblocks: in the user's set for good, and in the chat for quick access. */
export const SET_BLOCKED = `
  ${ADD_TO_FEED}
  local chat, blocked, feed, feedState = unpack(KEYS)
  local user, visitor, value = unpack(ARGV)
  local exists = redis.call('EXISTS', chat) == 1
  if tostring(redis.call('SISMEMBER', blocked, visitor)) == value then return 'done' end
  if value ~= '1' then
    redis.call('SREM', blocked, visitor)
  else
    if not exists then return 'not_found' end
    if redis.call('SCARD', blocked) >= ${MAX_BLOCKS} then return 'too_many' end
    redis.call('SADD', blocked, visitor)
  end
  if exists then redis.call('HSET', chat, 'blocked', value) end
  addToFeed(feed, feedState, 'kind', 'blocked', 'user', user, 'visitor', visitor, 'blocked', value)
  return 'done'
`;

export const MARK_READ = `
  ${ADD_TO_FEED}
  local messages, chat, feed, feedState = unpack(KEYS)
  local by, user, visitor, origin = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  if not newest then return false end
  local last = newest[1]:match('^%d+')
  if redis.call('HGET', chat, 'read:' .. by) ~= last then
    redis.call('HSET', chat, 'read:' .. by, last, 'unread:' .. by, 0)
    addToFeed(feed, feedState, 'kind', 'read', 'origin', origin,
      'user', user, 'visitor', visitor, 'by', by, 'upTo', last)
  end
  return last
`;

/** A page of somebody's chats. Expired ones are removed from the index. */
export const LIST = `
  ${DROP_OLD}
  local index, blocked = unpack(KEYS)
  local before, limit, prefix, side, own, oldest = unpack(ARGV)
  local chats = {}
  for _, partner in ipairs(redis.call('ZREVRANGEBYSCORE', index, before, '-inf', 'LIMIT', 0, limit)) do
    local name = side == 'user' and partner .. ':' .. own or own .. ':' .. partner
    local messages, chat = prefix .. 'messages:' .. name, prefix .. 'chat:' .. name
    dropOld(messages, oldest)
    local last = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
    if last and tonumber(last[2][2]) >= tonumber(oldest) then
      local state = redis.call('HMGET', chat, 'unread:' .. side, 'nickname')
      table.insert(chats, {
        partner,
        math.min(tonumber(state[1] or 0), redis.call('XLEN', messages)),
        state[2] or '',
        side == 'user' and redis.call('SISMEMBER', blocked, partner) or 0,
        last
      })
    elseif not last then
      redis.call('ZREM', index, partner)
    end
  end
  return chats
`;

/** A page of one chat: as many messages as were asked for, or fewer when they are long. */
export const PAGE = `
  ${DROP_OLD}
  local messages, chat = unpack(KEYS)
  local command, first, last, limit, oldest = unpack(ARGV)
  if redis.call('EXISTS', chat) == 0 then return false end
  dropOld(messages, oldest)
  local page, length, isCut = {}, 0, 0
  while #page < tonumber(limit) and isCut == 0 do
    local entries = redis.call(command, messages, first, last, 'COUNT', math.min(limit - #page, 20))
    if #entries == 0 then break end
    for _, entry in ipairs(entries) do
      length = length + #entry[2][4]
      if #page > 0 and length > ${2 * MAX_PAGE_LENGTH} then
        isCut = 1
        break
      end
      page[#page + 1] = entry
    end
    first = '(' .. entries[#entries][1]
  end
  local read = redis.call('HMGET', chat, 'read:user', 'read:visitor')
  return {page, read[1] or '0', read[2] or '0', isCut}
`;

/** Spends one of the requests that somebody may make in a window (the generic cell rate algorithm). */
export const SPEND = `
  local interval, window = unpack(ARGV)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + interval
  local wait = math.ceil(whole - now - window)
  if wait > 0 then return wait end
  redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', window)
  return 0
`;

export const REMOVE = `
  ${ADD_TO_FEED}
  local messages, chat, ofUser, ofVisitor, feed, feedState = unpack(KEYS)
  local user, visitor = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  redis.call('ZREM', ofUser, visitor)
  redis.call('ZREM', ofVisitor, user)
  redis.call('DEL', messages)
  if redis.call('DEL', chat) == 0 then return 0 end
  addToFeed(feed, feedState, 'kind', 'deleted', 'user', user, 'visitor', visitor,
    'upTo', newest and newest[1]:match('^%d+') or '0')
  return 1
`;
