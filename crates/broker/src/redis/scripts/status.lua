-- Returns the status of a user: 1 if it is online, else 0, the number of its connections, when it was last seen (ms), or 0, and
-- the time (ms). Follows clock.lua and seen.lua.
--
-- KEYS: 1 counts, 2 pending vacancy, 3 last seen.

local now = clock()
local connections = 0
for _, count in ipairs(redis.call('HVALS', KEYS[1])) do
  connections = connections + (tonumber(string.match(count, '^%d+')) or 0)
end
if connections > 0 then return { 1, connections, now, now } end
return { redis.call('EXISTS', KEYS[2]), 0, (read_seen(KEYS[3])), now }
