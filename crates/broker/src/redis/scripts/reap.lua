-- Removes some of a dead node's members from a topic. Follows leave.lua.
--
-- KEYS: 1 the node's members, 2 counts. ARGV: 1 channel, 2 incarnation, 3 the most members to remove.
-- Returns the number of remaining members.

local members = redis.call('HRANDFIELD', KEYS[1], ARGV[3], 'WITHVALUES')
for i = 1, #members, 2 do
  redis.call('HDEL', KEYS[1], members[i])
  say_leave(ARGV[1], members[i + 1])
end
local left = redis.call('HLEN', KEYS[1])
if left == 0 then redis.call('HDEL', KEYS[2], ARGV[2]) end
return left
