-- Adds members of a topic with events, or replaces their bodies. Follows clock.lua, seen.lua and event.lua.
--
-- KEYS: 1 the node's members, 2 counts, 3... those of open_outbox.
-- ARGV: 1 to 5 those of open_outbox, 6 the end of the node's lease (ms), 7 incarnation, 8 the node's users, 9 TTL (ms),
--       10... client, body, client, body...
-- Returns the number of new members, or -2 if the lease has ended: then nothing has changed.

local now = clock()
if now >= tonumber(ARGV[6]) then return -2 end
local outbox = open_outbox(now, 3, 1)
local own, others = count_members(KEYS[1], KEYS[2], ARGV[7])
local added = 0
for i = 10, #ARGV, 2 do
  if redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    write_join(outbox, ARGV[i + 1], own + others)
    own = own + 1
    added = added + 1
  end
end
redis.call('HSET', KEYS[2], ARGV[7], own .. ':' .. ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('PEXPIRE', KEYS[2], ARGV[9])
close_outbox(outbox)
return added
