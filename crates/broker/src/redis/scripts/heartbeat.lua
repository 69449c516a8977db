-- Renews a node's lease, unless the node is fenced or must not join. Follows clock.lua.
--
-- KEYS: 1 nodes, 2 their details, 3 lease, 4 tombstone, 5 the cluster's settings.
-- ARGV: 1 incarnation, 2 lease (ms), 3 its details, 4 settings, 5 '1' if the node joins, 6 TTL (ms) of data that
--       outlives leases.
-- Returns 'fenced', or 'refused' and the settings of live nodes, or 'held', the beginning of the lease, the ms until
-- the next lease of another node ends (0 if there is none), some of the nodes whose lease has ended, and the time.

local SOME = 16

-- A command that needs no memory goes first: after it a full Redis accepts the others too.
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if redis.call('EXISTS', KEYS[4]) == 1 then return { 'fenced' } end

local now = clock()
local settings = redis.call('GET', KEYS[5])
if ARGV[5] == '1' and settings and settings ~= ARGV[4] and redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') > 0 then
  return { 'refused', settings }
end

local since = redis.call('GET', KEYS[3]) or string.format('%.0f', now)
redis.call('SET', KEYS[3], since, 'PX', ARGV[2])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
-- A node that joins without other live nodes sets the settings.
if ARGV[5] == '1' or not settings or settings == ARGV[4] then redis.call('SET', KEYS[5], ARGV[4], 'PX', ARGV[2]) end

local ends_in = 0
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 2)
for i = 1, #first, 2 do
  if first[i] ~= ARGV[1] then
    ends_in = first[i + 1] - now
    break
  end
end
local ended = {}
for _, incarnation in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, SOME)) do
  if #incarnation == 32 and not string.find(incarnation, '[^0-9a-f]') then
    ended[#ended + 1] = incarnation
  else
    -- Not an incarnation. No node would reap it, and it would hide dead nodes behind it.
    redis.call('ZREM', KEYS[1], incarnation)
  end
end
return { 'held', since, ends_in, ended, now }
