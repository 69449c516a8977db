-- Fences a node whose lease has ended, and lets one node at a time remove its members. Follows clock.lua.
--
-- KEYS: 1 nodes, 2 its lease, 3 its tombstone, 4 reaping, 5 the nodes' details.
-- ARGV: 1 incarnation, 2 the reaper, 3 the time that others wait (ms), 4 TTL (ms) of data that outlives leases.
-- The reaper may be the node itself, which thereby ends its lease.
-- Returns 1 if the caller is to reap, the number of other live nodes, and the dead node's details.

local NOT_NOW = { 0, 0, '' }

local now = clock()
if ARGV[2] ~= ARGV[1] then
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not ends or tonumber(ends) > now then return NOT_NOW end
  local reaps = redis.call('GET', KEYS[4])
  if reaps and reaps ~= ARGV[2] then return NOT_NOW end
end
redis.call('DEL', KEYS[2])
-- If the caller does not finish, another node finds that the lease has ended.
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
local lives = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
return { 1, lives, redis.call('HGET', KEYS[5], ARGV[1]) or '' }
