-- Says that a topic is vacant, if that is due. Follows clock.lua and event.lua.
--
-- KEYS: 1 pending vacancy, 2 counts, 3 outbox. ARGV: 1 topic, 2 the outbox' length, 3 retention (ms).
-- Returns the time (ms) until it is due, or 0 if nothing is pending any more.

local now = clock()
local outbox = open_outbox(KEYS[3], KEYS[1], now, ARGV[1], ARGV[2], ARGV[3])
local due, mask = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
if due and now < tonumber(due) then return tonumber(due) - now end
local _, members = count_members(nil, KEYS[2], '')
if due and members == 0 then write_state(outbox, VACATED, tonumber(mask)) end
redis.call('DEL', KEYS[1])
close_outbox(outbox)
return 0
