/**
 * Spends some of what somebody may do in a window of time, over all processes (the generic cell rate algorithm): of all
 * keys, each with its own window, or of none. Two arguments for each: what the act takes of the window, less than 0 to give back, and
 * the window, both in milliseconds. Returns the milliseconds to wait, 0 when it was spent.
 */
export const SPEND = `
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local wait, whole = 0, {}
  for n, key in ipairs(KEYS) do
    -- No further ahead than the window, in case the clock was set back.
    local ahead = math.min(tonumber(redis.call('GET', key) or 0) - now, ARGV[2 * n])
    whole[n] = now + math.max(ahead, 0) + ARGV[2 * n - 1]
    wait = math.max(wait, math.ceil(whole[n] - now - ARGV[2 * n]))
  end
  if wait > 0 then return wait end
  for n, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', whole[n]), 'PX', ARGV[2 * n])
  end
  return 0
`;
