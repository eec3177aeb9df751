import { ADD_TO_FEED } from "../redis/feed.ts";
import {
  MAX_BLOCKS,
  MAX_PAGE_LENGTH,
  MAX_UNANSWERED,
  MAX_UNANSWERED_MESSAGES,
  UNANSWERED_TTL_MS,
  WRITING_WINDOW_MS,
} from "./history.ts";

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
 * Stores messages, one after the other: one step, so that no failure leaves half of one. Ten arguments for each,
 * after those that all share. A chat's keys are made here: to send them with each message would take longer.
 */
export const APPEND = `
  ${ADD_TO_FEED}
  ${DROP_OLD}
  local sequence, feed, feedState = unpack(KEYS, 1, 3)
  local refTtl, maxMessages, maxAge, prefix = unpack(ARGV, 1, 4)
  local call = redis.call
  local frames = {}

  -- Ids of messages that turn out to be known or refused are left out. After data was lost, ids must not be
  -- used again, so they never fall behind the time.
  local count = (#ARGV - 4) / 10
  local time = call('TIME')
  local floor = time[1] * 100000 + math.floor(time[2] / 10)
  local lastId = call('INCRBY', sequence, count)
  if lastId < floor then
    lastId = floor
    call('SET', sequence, string.format('%.0f', floor))
  end
  local firstId = lastId - count + 1

  local function add(messages, id, at, body, caller)
    if maxMessages == '0' then return caller('XADD', messages, id .. '-0', 'at', at, 'body', body) end
    return caller('XADD', messages, 'MAXLEN', maxMessages, id .. '-0', 'at', at, 'body', body)
  end

  -- The sequence was lost, and the chat's ids are ahead of the time: they go on from its last one.
  local function recover(n, messages)
    local state = call('XINFO', 'STREAM', messages)
    for at = 1, #state, 2 do
      if state[at] == 'last-generated-id' then firstId = tonumber(state[at + 1]:match('^%d+')) + 1 - n end
    end
    call('SET', sequence, string.format('%.0f', firstId + count - 1))
    return string.format('%.0f', firstId + n)
  end

  -- Each chat is read once, and what several messages change in it is written once.
  local chats, changed = {}, {}
  local function read(id, user, visitor)
    local name = prefix .. 'chat:' .. id
    local state = call('HMGET', name, 'touched', 'blocked', 'answered')
    local chat = {
      name = name, messages = prefix .. 'messages:' .. id, user = user, visitor = visitor,
      touched = state[1], isBlocked = state[2], isAnswered = state[3], toUser = 0, toVisitor = 0
    }
    if not chat.touched then
      chat.isBlocked = tostring(call('SISMEMBER', prefix .. 'blocked:' .. user, visitor))
    end
    chats[id] = chat
    return chat
  end

  -- When each sender's share will be whole again, over all processes (the generic cell rate algorithm).
  local writers = {}
  local function writtenAfter(writing, at, cost)
    if cost == '0' then return 0 end
    writers[writing] = writers[writing] or tonumber(call('GET', writing) or 0)
    return math.max(writers[writing], at) + cost
  end

  local function append(n)
    local side, user, visitor, nickname, at, givenRef, onlyAnswered, body, preview, cost =
      unpack(ARGV, 5 + n * 10, 14 + n * 10)
    local chatId = visitor .. ':' .. user
    local chat = chats[chatId] or read(chatId, user, visitor)
    local unanswered, waiting = prefix .. 'unanswered:' .. visitor, prefix .. 'waiting:' .. visitor
    local ref = givenRef ~= '' and prefix .. 'ref:' .. visitor .. ':' .. side .. ':' .. givenRef
    local byVisitor = side == 'visitor'
    local writing = prefix .. 'writing:' .. side .. ':' .. (byVisitor and visitor or user)
    local isWaiting = byVisitor and not chat.isAnswered
    local waitingSince = isWaiting and call('ZSCORE', unanswered, user)
    if waitingSince and tonumber(waitingSince) <= at - ${UNANSWERED_TTL_MS} then waitingSince = false end
    local refused
    if byVisitor and chat.isBlocked == '1' then
      refused = 'blocked'
    elseif isWaiting and onlyAnswered == '1' then
      refused = 'too_many_messages'
    elseif waitingSince and tonumber(call('HGET', waiting, user) or 0) >= ${MAX_UNANSWERED_MESSAGES} then
      refused = 'too_many_messages'
    elseif isWaiting and not chat.touched and not waitingSince then
      call('ZREMRANGEBYSCORE', unanswered, '-inf', at - ${UNANSWERED_TTL_MS})
      if call('ZCARD', unanswered) >= ${MAX_UNANSWERED} then refused = 'too_many_recipients' end
    elseif not byVisitor and not chat.touched then
      refused = 'not_found'
    end
    local written = writtenAfter(writing, at, cost)
    if written > at + ${WRITING_WINDOW_MS} then refused = refused or 'too_many_messages' end
    local id = string.format('%.0f', firstId + n)
    local kept = id .. ' ' .. at
    if ref then
      if refused then return call('GET', ref) or refused end
      if not call('SET', ref, kept, 'NX', 'PX', refTtl) then return call('GET', ref) end
    elseif refused then
      return refused
    end
    if type(add(chat.messages, id, at, body, redis.pcall)) == 'table' then
      id = recover(n, chat.messages)
      kept = id .. ' ' .. at
      if ref then call('SET', ref, kept, 'PX', refTtl) end
      add(chat.messages, id, at, body, call)
    end
    if cost ~= '0' then writers[writing] = written end
    if isWaiting and waitingSince then
      call('HINCRBY', waiting, user, 1)
    elseif isWaiting then
      call('ZADD', unanswered, at, user)
      call('HSET', waiting, user, 1)
      call('PEXPIRE', unanswered, ${UNANSWERED_TTL_MS})
      call('PEXPIRE', waiting, ${UNANSWERED_TTL_MS})
    elseif not byVisitor and not chat.isAnswered then
      chat.isAnswered = '1'
      call('HSET', chat.name, 'answered', 1)
      call('ZREM', unanswered, user)
      call('HDEL', waiting, user)
    end
    if byVisitor then chat.toUser = chat.toUser + 1 else chat.toVisitor = chat.toVisitor + 1 end
    if byVisitor and nickname ~= '' then chat.nickname = nickname end
    if not chat.touched or at - chat.touched > ${TOUCH_MS} then chat.touched, chat.isStale = at, true end
    if not chat.lastId then changed[#changed + 1] = chat end
    chat.lastId, chat.at, chat.last = id, at, preview == '' and body or preview
    frames[#frames + 1] = chatId .. '\\t{"id":"' .. id .. '",' .. body
    return isWaiting and kept .. ' unanswered' or kept
  end

  local function write(chat)
    call('HSET', chat.name, 'at', chat.at, 'last', chat.last)
    if chat.toUser > 0 then call('HINCRBY', chat.name, 'unread:user', chat.toUser) end
    if chat.toVisitor > 0 then call('HINCRBY', chat.name, 'unread:visitor', chat.toVisitor) end
    if chat.nickname then call('HSET', chat.name, 'nickname', chat.nickname) end
    local ofUser, ofVisitor = prefix .. 'of-user:' .. chat.user, prefix .. 'of-visitor:' .. chat.visitor
    call('ZADD', ofUser, chat.lastId, chat.visitor)
    call('ZADD', ofVisitor, chat.lastId, chat.user)
    if not chat.isStale then return end
    call('HSET', chat.name, 'touched', chat.touched, 'blocked', chat.isBlocked)
    if maxAge == '0' then return end
    dropOld(chat.messages, chat.touched - maxAge)
    for _, key in ipairs({chat.messages, chat.name, ofUser, ofVisitor}) do
      call('PEXPIRE', key, maxAge + ${TOUCH_MS})
    end
  end

  local outcomes = {}
  for n = 0, count - 1 do
    outcomes[n + 1] = append(n)
  end
  for _, chat in ipairs(changed) do write(chat) end
  for writing, written in pairs(writers) do
    call('SET', writing, string.format('%.0f', written), 'PX', ${WRITING_WINDOW_MS})
  end
  if #frames > 0 then
    addToFeed(feed, feedState, 'kind', 'messages', 'frames', table.concat(frames, '\\n'))
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
  local by, user, visitor = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  if not newest then return false end
  local last = newest[1]:match('^%d+')
  if redis.call('HGET', chat, 'read:' .. by) ~= last then
    redis.call('HSET', chat, 'read:' .. by, last, 'unread:' .. by, 0)
    addToFeed(feed, feedState, 'kind', 'read', 'user', user, 'visitor', visitor, 'by', by, 'upTo', last)
  end
  return last
`;

/**
 * A page of somebody's chats, from what each has in its hash: reading the last messages themselves would hold up
 * Redis for many times as long. Expired chats are removed from the index.
 */
export const LIST = `
  ${DROP_OLD}
  local index, blocked = unpack(KEYS)
  local before, limit, prefix, side, own, oldest = unpack(ARGV)
  local call = redis.call

  local function unreadOf(messages, chat, unread, swept)
    if unread == 0 then return 0 end
    if oldest - (swept or 0) > ${TOUCH_MS} then
      dropOld(messages, oldest)
      call('HSET', chat, 'swept', oldest)
    end
    return math.min(unread, call('XLEN', messages))
  end

  local chats = {}
  local found = call('ZREVRANGEBYSCORE', index, before, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  for n = 1, #found, 2 do
    local partner, id = found[n], string.format('%.0f', found[n + 1])
    local name = side == 'user' and partner .. ':' .. own or own .. ':' .. partner
    local messages, chat = prefix .. 'messages:' .. name, prefix .. 'chat:' .. name
    local state = call('HMGET', chat, 'unread:' .. side, 'nickname', 'blocked', 'swept', 'at', 'last')
    local unread, nickname, isBlocked, swept, at, last = unpack(state, 1, 6)
    if not at then
      -- Of an earlier version, or none.
      local entry = call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
      if entry then at, last = entry[2][2], entry[2][4] end
    end
    local isOld = at and tonumber(at) < tonumber(oldest)
    if isOld then dropOld(messages, oldest) end
    if not at or isOld and call('XLEN', messages) == 0 then
      call('ZREM', index, partner)
    elseif not isOld then
      table.insert(chats, {
        partner,
        unreadOf(messages, chat, tonumber(unread or 0), swept),
        nickname or '',
        side == 'user' and tonumber(isBlocked or call('SISMEMBER', blocked, partner)) or 0,
        id,
        last
      })
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

export const REMOVE = `
  ${ADD_TO_FEED}
  local messages, chat, ofUser, ofVisitor, feed, feedState = unpack(KEYS)
  local user, visitor = unpack(ARGV)
  local newest = redis.call('XREVRANGE', messages, '+', '-', 'COUNT', 1)[1]
  redis.call('ZREM', ofUser, visitor)
  redis.call('ZREM', ofVisitor, user)
  redis.call('UNLINK', messages)
  if redis.call('DEL', chat) == 0 then return 0 end
  addToFeed(feed, feedState, 'kind', 'deleted', 'user', user, 'visitor', visitor,
    'upTo', newest and newest[1]:match('^%d+') or '0')
  return 1
`;
