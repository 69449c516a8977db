-- Removes clients from a topic with events. Clients may be absent. Follows clock.lua, seen.lua, event.lua and leave.lua.
--
-- KEYS: 1 the node's members, 2 counts, 3... those of open_outbox.
-- ARGV: 1 to 5 those of open_outbox, 6 the end of the node's lease (ms), 7 incarnation, 8 the node's users, 9 TTL (ms),
--       10 the delay of a vacancy (ms), 11 number and 12 text of the reason, 13... clients.
-- Returns the number of removed clients, or -2 if the lease has ended: then nothing has changed.

local now = clock()
if now >= tonumber(ARGV[6]) then return -2 end
local outbox = open_outbox(now, 3, 1)
local own, others = count_members(KEYS[1], KEYS[2], ARGV[7])
local removed, mask = 0, 0
for i = 13, #ARGV do
  local body = redis.call('HGET', KEYS[1], ARGV[i])
  if body then
    redis.call('HDEL', KEYS[1], ARGV[i])
    say_leave(outbox.channel, body)
    mask = write_leave(outbox, body, ARGV[11], ARGV[12])
    removed = removed + 1
  end
end
own = own - removed
if own == 0 then
  redis.call('HDEL', KEYS[2], ARGV[7])
else
  redis.call('HSET', KEYS[2], ARGV[7], own .. ':' .. ARGV[8])
  redis.call('PEXPIRE', KEYS[2], ARGV[9])
end
if removed > 0 and own == 0 then write_vacancy(outbox, mask, now + ARGV[10], others, 0) end
close_outbox(outbox)
return removed
