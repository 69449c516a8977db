-- Says that a topic is vacant, if that is due. Follows clock.lua, seen.lua and event.lua.
--
-- KEYS: 1 counts, 2... those of open_outbox. ARGV: 1 to 5 those of open_outbox.
-- Returns the time (ms) until it is due, or 0 if nothing is pending any more.

local now = clock()
local outbox = open_outbox(now, 2, 1)
local due, mask = string.match(redis.call('GET', outbox.pending) or '', '^(%d+):(%d+)$')
if due and now < tonumber(due) then return tonumber(due) - now end
local _, members = count_members(nil, KEYS[1], '')
if due and members == 0 then write_state(outbox, VACATED, tonumber(mask)) end
redis.call('DEL', outbox.pending)
close_outbox(outbox)
return 0
