-- Redis' own clock. Prefixed to the scripts about leases.

-- Milliseconds.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
