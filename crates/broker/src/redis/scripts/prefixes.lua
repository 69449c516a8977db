-- Says that a cluster lives under a prefix, unless it is new and others live. Follows clock.lua.
--
-- KEYS: 1 prefixes. ARGV: 1 prefix, space, application, 2 prefix, 3 lease (ms), 4 '1' if others are refused,
--       5 TTL (ms).
-- Returns the prefix of another cluster, or ''.

local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[4] == '1' then
  local other = ''
  for _, lives in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local prefix = string.match(lives, '^(.*) [^ ]*$')
    if prefix == ARGV[2] then
      other = ''
      break
    end
    other = prefix or other
  end
  if other ~= '' then return other end
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return ''
