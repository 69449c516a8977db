-- Takes tokens from a bucket that all nodes share.
--
-- KEYS: 1 the moment at which the bucket is full again (us).
-- ARGV: 1 the time after which the tokens are back (us), 2 the longest time until the bucket is full (us).
-- Returns the time until the bucket is full (us).

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0) or 0, now)
local debt = math.min(full - now + tonumber(ARGV[1]), tonumber(ARGV[2]))
redis.call('SET', KEYS[1], string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000) + 1000)
return debt
