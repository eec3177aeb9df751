/** Start of every key of the chat's. */
export const PREFIX = "ws-ticket:chat:";

/** How often a chat's expiry is prolonged and its old messages are deleted, in milliseconds. */
const TOUCH_MS = 3_600_000;
/** Deletes a chat's messages that are too old. Ids rise with time, so the first recent one ends the search. */
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
 * Stores messages, one after the other: one step, so that no failure leaves half of one. Seven keys and seven
 * arguments for each, after those that all share.
 */
export const APPEND = `
  ${DROP_OLD}
  local sequence, feed = unpack(KEYS, 1, 2)
  local refTtl, maxMessages, maxAge, feedLength, maxUnanswered, unansweredTtl = unpack(ARGV, 1, 6)
  local call = redis.call
  local frames = {}

  local function hasTooManyUnanswered(unanswered, user, at)
    call('ZREMRANGEBYSCORE', unanswered, '-inf', at - unansweredTtl)
    local others = call('ZCARD', unanswered) - (call('ZSCORE', unanswered, user) and 1 or 0)
    return others >= tonumber(maxUnanswered)
  end

  -- Ids of messages that turn out to be known or refused are left out.
  local count = (#KEYS - 2) / 7
  local firstId = call('INCRBY', sequence, count) - count + 1

  local function append(n)
    local messages, chat, ref, ofUser, ofVisitor, blocked, unanswered = unpack(KEYS, 3 + n * 7, 9 + n * 7)
    local side, user, visitor, nickname, at, hasRef, body = unpack(ARGV, 7 + n * 7, 13 + n * 7)
    local byVisitor = side == 'visitor'
    local state = call('HMGET', chat, 'touched', 'blocked', 'answered')
    local touched = state[1]
    local isBlocked = touched and state[2] or tostring(call('SISMEMBER', blocked, visitor))
    local refused
    if byVisitor then
      if isBlocked == '1' then
        refused = 'blocked'
      elseif not touched and hasTooManyUnanswered(unanswered, user, at) then
        refused = 'too_many_recipients'
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
    return kept
  end

  local outcomes = {}
  for n = 0, count - 1 do
    outcomes[n + 1] = append(n)
  end
  if #frames > 0 then
    call('XADD', feed, 'MAXLEN', '~', feedLength, '*', 'kind', 'messages',
      'frames', table.concat(frames, '\\n'))
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
  local chat, blocked = unpack(KEYS)
  local visitor, value = unpack(ARGV)
  redis.call(value == '1' and 'SADD' or 'SREM', blocked, visitor)
  if redis.call('EXISTS', chat) == 1 then redis.call('HSET', chat, 'blocked', value) end
  return 1
`;

export const MARK_READ = `
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

export const PAGE = `
  ${DROP_OLD}
  local messages, chat = unpack(KEYS)
  local command, first, last, limit, oldest = unpack(ARGV)
  if redis.call('EXISTS', chat) == 0 then return false end
  dropOld(messages, oldest)
  local read = redis.call('HMGET', chat, 'read:user', 'read:visitor')
  return {redis.call(command, messages, first, last, 'COUNT', limit), read[1] or '0', read[2] or '0'}
`;

export const REMOVE = `
  local messages, chat, ofUser, ofVisitor = unpack(KEYS)
  redis.call('ZREM', ofUser, ARGV[2])
  redis.call('ZREM', ofVisitor, ARGV[1])
  redis.call('DEL', messages)
  return redis.call('DEL', chat)
`;
