-- Removes clients from a topic with events. Clients may be absent. Follows clock.lua, event.lua and leave.lua.
--
-- KEYS: 1 the node's members, 2 counts, 3 outbox, 4 pending vacancy.
-- ARGV: 1 topic, 2 the outbox' length, 3 retention (ms), 4 the end of the node's lease (ms), 5 incarnation, 6 the node's
--       users, 7 TTL (ms), 8 channel, 9 the delay of a vacancy (ms), 10 number and 11 text of the reason, 12... clients.
-- Returns the number of removed clients, or -2 if the lease has ended: then nothing has changed.

local now = clock()
if now >= tonumber(ARGV[4]) then return -2 end
local outbox = open_outbox(KEYS[3], KEYS[4], now, ARGV[1], ARGV[2], ARGV[3])
local own, others = count_members(KEYS[1], KEYS[2], ARGV[5])
local removed, mask = 0, 0
for i = 12, #ARGV do
  local body = redis.call('HGET', KEYS[1], ARGV[i])
  if body then
    redis.call('HDEL', KEYS[1], ARGV[i])
    say_leave(ARGV[8], body)
    mask = write_leave(outbox, body, ARGV[10], ARGV[11])
    removed = removed + 1
  end
end
own = own - removed
if own == 0 then
  redis.call('HDEL', KEYS[2], ARGV[5])
else
  redis.call('HSET', KEYS[2], ARGV[5], own .. ':' .. ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
if removed > 0 and own == 0 then write_vacancy(outbox, mask, now + ARGV[9], others) end
close_outbox(outbox)
return removed
