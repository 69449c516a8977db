-- Adds members of a topic with events, or replaces their bodies. Follows clock.lua and event.lua.
--
-- KEYS: 1 the node's members, 2 counts, 3 outbox, 4 pending vacancy.
-- ARGV: 1 topic, 2 the outbox' length, 3 retention (ms), 4 the end of the node's lease (ms), 5 incarnation, 6 the node's
--       users, 7 TTL (ms), 8... client, body, client, body...
-- Returns the number of new members, or -2 if the lease has ended: then nothing has changed.

local now = clock()
if now >= tonumber(ARGV[4]) then return -2 end
local outbox = open_outbox(KEYS[3], KEYS[4], now, ARGV[1], ARGV[2], ARGV[3])
local own, others = count_members(KEYS[1], KEYS[2], ARGV[5])
local added = 0
for i = 8, #ARGV, 2 do
  if redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    write_join(outbox, ARGV[i + 1], own + others)
    own = own + 1
    added = added + 1
  end
end
redis.call('HSET', KEYS[2], ARGV[5], own .. ':' .. ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
close_outbox(outbox)
return added
