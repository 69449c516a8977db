-- Removes a member of a sorted set unless its score has grown since it was read.
--
-- KEYS: 1 sorted set. ARGV: 1 member, 2 the score that was read. Returns 1 if it was removed.

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
