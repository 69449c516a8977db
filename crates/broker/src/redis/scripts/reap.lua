-- Removes some of a dead node's members from a topic. Follows clock.lua, event.lua and leave.lua.
--
-- KEYS: 1 the node's members, 2 counts; if the node had events, 3 outbox, 4 pending vacancy.
-- ARGV: 1 channel, 2 incarnation, 3 the most members to remove; if the node had events, 4 topic, 5 the outbox' length,
--       6 retention (ms), 7 the delay of a vacancy (ms), 8 number and 9 text of the reason.
-- Returns the number of remaining members.

local outbox, others
if KEYS[3] then
  outbox = open_outbox(KEYS[3], KEYS[4], clock(), ARGV[4], ARGV[5], ARGV[6])
  others = select(2, count_members(nil, KEYS[2], ARGV[2]))
end
local members = redis.call('HRANDFIELD', KEYS[1], ARGV[3], 'WITHVALUES')
local mask = 0
for i = 1, #members, 2 do
  redis.call('HDEL', KEYS[1], members[i])
  say_leave(ARGV[1], members[i + 1])
  if outbox then mask = write_leave(outbox, members[i + 1], ARGV[8], ARGV[9]) end
end
local left = redis.call('HLEN', KEYS[1])
if left == 0 then redis.call('HDEL', KEYS[2], ARGV[2]) end
if outbox then
  if #members > 0 and left == 0 then
    -- A member of another node may have left after these.
    write_vacancy(outbox, mask, math.max(outbox.now + ARGV[7], pending_due(outbox)), others)
  end
  close_outbox(outbox)
end
return left
