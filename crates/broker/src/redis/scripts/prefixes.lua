-- Registers a cluster's prefix, unless it is new and other clusters are live. Follows clock.lua.
--
-- KEYS: 1 prefixes. ARGV: 1 prefix, 2 lease (ms), 3 '1' if others are refused, 4 TTL (ms).
-- Returns the prefix of another cluster, or ''.

local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[3] == '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  local other = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if other then return other end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return ''
