-- The time at which a user was last seen. Prefixed to the scripts about users.

-- Returns it, and the time until which the user's heartbeat counts (ms), both 0 if nothing is known.
local function read_seen(key)
  local seen, beat = string.match(redis.call('GET', key) or '', '^(%d+):(%d+)$')
  return tonumber(seen) or 0, tonumber(beat) or 0
end
