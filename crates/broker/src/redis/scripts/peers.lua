-- Returns the live nodes. Follows clock.lua.
--
-- KEYS: 1 nodes, 2 their details. Returns incarnation, details, incarnation, details...

local peers = {}
for _, incarnation in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. clock(), '+inf')) do
  peers[#peers + 1] = incarnation
  peers[#peers + 1] = redis.call('HGET', KEYS[2], incarnation) or ''
end
return peers
