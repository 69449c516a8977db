-- Keeps a user online who has no connection. Follows clock.lua, seen.lua and event.lua.
--
-- KEYS: 1 counts, 2... those of open_outbox. ARGV: 1 to 5 those of open_outbox, 6 the time for which it counts (ms), 7 the mask
--       of the user's events.

local now = clock()
local outbox = open_outbox(now, 2, 1)
local due, mask = pending_due(outbox), tonumber(ARGV[7])
keep_seen(outbox, now, now + ARGV[6])
local _, members = count_members(nil, KEYS[1], '')
if members == 0 then
  if due == 0 then write_state(outbox, OCCUPIED, mask) end
  pend_vacancy(outbox, mask, math.max(outbox.beat, due))
end
close_outbox(outbox)
return 1
