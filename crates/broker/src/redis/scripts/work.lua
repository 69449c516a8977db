-- Lets one node at a time do the work on outboxes.
--
-- KEYS: 1 claim. ARGV: 1 the node, 2 the time that others wait (ms). Returns 1 if the node does it.

local worker = redis.call('GET', KEYS[1])
if worker and worker ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
