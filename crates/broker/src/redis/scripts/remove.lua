-- Removes clients from a topic. Clients may be absent. Follows leave.lua.
--
-- KEYS: 1 the node's members, 2 counts.
-- ARGV: 1 channel, 2 incarnation, 3 the node's new counts, or '', 4 TTL of the counts (ms), 5... clients.
-- Returns the number of removed clients.

local bodies = {}
for i = 5, #ARGV do
  local body = redis.call('HGET', KEYS[1], ARGV[i])
  if body then
    redis.call('HDEL', KEYS[1], ARGV[i])
    bodies[#bodies + 1] = body
  end
end
-- The leaves of deleted clients must be published, even if the counts cannot be stored.
local counted
if ARGV[3] == '' then
  counted = redis.pcall('HDEL', KEYS[2], ARGV[2])
else
  counted = redis.pcall('HSET', KEYS[2], ARGV[2], ARGV[3])
  redis.pcall('PEXPIRE', KEYS[2], ARGV[4])
end
for _, body in ipairs(bodies) do say_leave(ARGV[1], body) end
if type(counted) == 'table' and counted.err then return counted end
return #bodies
