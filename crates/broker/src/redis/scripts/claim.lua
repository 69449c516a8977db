-- Lets one node at a time take out the members of one whose lease has ended, which is dead for good from then on.
-- Follows clock.lua.
--
-- KEYS: 1 nodes, 2 its lease, 3 its tombstone, 4 reaping, 5 the nodes' names.
-- ARGV: 1 incarnation, 2 who reaps, 3 for how long others wait (ms), 4 TTL (ms) of what outlives leases.
-- Who reaps may be the node itself, which ends its lease by that.
-- Returns whether it is the caller's turn, how many others live, and what the dead node said of itself.

local NOT_NOW = { 0, 0, '' }

local now = clock()
if ARGV[2] ~= ARGV[1] then
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if not ends or tonumber(ends) > now then return NOT_NOW end
  local reaps = redis.call('GET', KEYS[4])
  if reaps and reaps ~= ARGV[2] then return NOT_NOW end
end
redis.call('DEL', KEYS[2])
-- If this is not finished, another finds that the lease has ended.
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
local lives = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
return { 1, lives, redis.call('HGET', KEYS[5], ARGV[1]) or '' }
