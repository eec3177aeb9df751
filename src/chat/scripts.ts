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
/** Messages that one script deletes at most because of their age. */
const MAX_DROPPED = 1_000;

/**
 * Deletes a chat's messages that are too old, and at most some of them: the next script continues. Ids rise
 * with time, so the first recent one ends the search.
 */
const DROP_OLD = `
  local dropped = 0
  local function dropOld(messages, oldest)
    while dropped < ${MAX_DROPPED} do
      local old = {}
      for _, entry in ipairs(redis.call('XRANGE', messages, '-', '+', 'COUNT', 100)) do
        if tonumber(entry[2][2]) >= tonumber(oldest) then break end
        old[#old + 1] = entry[1]
      end
      if #old == 0 then return end
      redis.call('XDEL', messages, unpack(old))
      dropped = dropped + #old
    end
  end
`;

/**
 * Stores messages, one after the other: one step, so that no failure leaves half of one. Seven keys and seven
 * arguments for each, after those that all share.
 */
export const APPEND = `
  ${ADD_TO_FEED}
  ${DROP_OLD}
  local sequence, feed, epoch = unpack(KEYS, 1, 3)
  local refTtl, maxMessages, maxAge, origin = unpack(ARGV, 1, 4)
  local call = redis.call
  local frames = {}

  local function hasTooManyUnanswered(unanswered, user, at)
    call('ZREMRANGEBYSCORE', unanswered, '-inf', at - ${UNANSWERED_TTL_MS})
    local others = call('ZCARD', unanswered) - (call('ZSCORE', unanswered, user) and 1 or 0)
    return others >= ${MAX_UNANSWERED}
  end

  -- Ids of messages that turn out to be known or refused are left out. After data was lost, ids must not be
  -- used again, so they never fall behind the time.
  local count = (#KEYS - 3) / 7
  local time = call('TIME')
  local floor = time[1] * 100000 + math.floor(time[2] / 10)
  local lastId = call('INCRBY', sequence, count)
  if lastId < floor then
    lastId = floor
    call('SET', sequence, string.format('%.0f', floor))
  end
  local firstId = lastId - count + 1

  local function append(n)
    local messages, chat, ref, ofUser, ofVisitor, blocked, unanswered = unpack(KEYS, 4 + n * 7, 10 + n * 7)
    local side, user, visitor, nickname, at, hasRef, onlyAnswered, body = unpack(ARGV, 5 + n * 8, 12 + n * 8)
    local byVisitor = side == 'visitor'
    local state = call('HMGET', chat, 'touched', 'blocked', 'answered', 'waiting')
    local touched = state[1]
    local isBlocked = touched and state[2] or tostring(call('SISMEMBER', blocked, visitor))
    local refused
    if byVisitor then
      if isBlocked == '1' then
        refused = 'blocked'
      elseif not state[3] then
        if onlyAnswered == '1' or tonumber(state[4] or 0) >= ${MAX_UNANSWERED_MESSAGES} then
          refused = 'too_many_messages'
        elseif not touched and hasTooManyUnanswered(unanswered, user, at) then
          refused = 'too_many_recipients'
        end
      end
    elseif not touched then
      refused = 'not_found'
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
    if byVisitor and not touched then
      call('ZADD', unanswered, at, user)
      call('PEXPIRE', unanswered, unansweredTtl)
    elseif not byVisitor and not state[3] then
      call('HSET', chat, 'answered', 1)
      call('ZREM', unanswered, user)
    end
    if byVisitor and not state[3] then call('HINCRBY', chat, 'waiting', 1) end
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
    return byVisitor and not state[3] and kept .. ' unanswered' or kept
  end

  local outcomes = {}
  for n = 0, count - 1 do
    outcomes[n + 1] = append(n)
  end
  if #frames > 0 then
    addToFeed(feed, epoch, 'kind', 'messages', 'origin', origin, 'frames', table.concat(frames, '\\n'))
  end
  return outcomes
`;

/** Blocks or unblocks: in the user's set for good, and in the chat for quick access. */
export const SET_BLOCKED = `
  local chat, blocked = unpack(KEYS)
  local visitor, value = unpack(ARGV)
  if value ~= '1' then
    redis.call('SREM', blocked, visitor)
  elseif redis.call('SISMEMBER', blocked, visitor) == 0 then
    if redis.call('EXISTS', chat) == 0 then return 'not_found' end
    if redis.call('SCARD', blocked) >= ${MAX_BLOCKS} then return 'too_many' end
    redis.call('SADD', blocked, visitor)
  end
  if redis.call('EXISTS', chat) == 1 then redis.call('HSET', chat, 'blocked', value) end
  return 'done'
`;

export const MARK_READ = `
  ${ADD_TO_FEED}
  local messages, chat, feed, epoch = unpack(KEYS)
  local by, user, visitor = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  if not newest then return false end
  local last = newest[1]:match('^%d+')
  if redis.call('HGET', chat, 'read:' .. by) ~= last then
    redis.call('HSET', chat, 'read:' .. by, last, 'unread:' .. by, 0)
    addToFeed(feed, epoch, 'kind', 'read', 'user', user, 'visitor', visitor, 'by', by, 'upTo', last)
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
    dropOld(prefix .. 'messages:' .. name, oldest)
    local last = redis.call('XREVRANGE', prefix .. 'messages:' .. name, '+', '-', 'COUNT', 1)[1]
    if last then
      local unread = tonumber(redis.call('HGET', prefix .. 'chat:' .. name, 'unread:' .. side) or 0)
      table.insert(chats, {
        partner,
        math.min(unread, redis.call('XLEN', prefix .. 'messages:' .. name)),
        redis.call('HGET', prefix .. 'chat:' .. name, 'nickname') or '',
        side == 'user' and redis.call('SISMEMBER', blocked, partner) or 0,
        last
      })
    else
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
      if tonumber(entry[2][2]) >= tonumber(oldest) then page[#page + 1] = entry end
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
  local messages, chat, ofUser, ofVisitor = unpack(KEYS)
  redis.call('ZREM', ofUser, ARGV[2])
  redis.call('ZREM', ofVisitor, ARGV[1])
  redis.call('DEL', messages)
  return redis.call('DEL', chat)
`;
