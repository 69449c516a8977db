-- Redis' own clock, for every script about leases. Prefixed to those scripts.

-- Milliseconds.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
