-- Removes some of a dead node's members from a topic. Follows clock.lua, seen.lua, event.lua and leave.lua.
--
-- KEYS: 1 the node's members, 2 counts; if the node had events, 3... those of open_outbox.
-- ARGV: 1 channel, 2 incarnation, 3 the most members to remove; if the node had events, 4 to 8 those of open_outbox, 9 the
--       delay of a vacancy (ms), 10 the time for which its members have been gone (ms), 11 number and 12 text of the reason.
-- Returns the number of remaining members.

local outbox, others
if KEYS[3] then
  outbox = open_outbox(clock(), 3, 4)
  others = select(2, count_members(nil, KEYS[2], ARGV[2]))
end
local members = redis.call('HRANDFIELD', KEYS[1], ARGV[3], 'WITHVALUES')
local mask = 0
for i = 1, #members, 2 do
  redis.call('HDEL', KEYS[1], members[i])
  say_leave(ARGV[1], members[i + 1])
  if outbox then mask = write_leave(outbox, members[i + 1], ARGV[11], ARGV[12]) end
end
local left = redis.call('HLEN', KEYS[1])
if left == 0 then redis.call('HDEL', KEYS[2], ARGV[2]) end
if outbox then
  if #members > 0 and left == 0 then
    -- A member of another node may have left after these.
    local due = math.max(outbox.now + ARGV[9], pending_due(outbox))
    write_vacancy(outbox, mask, due, others, tonumber(ARGV[10]))
  end
  close_outbox(outbox)
end
return left
