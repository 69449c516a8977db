-- Takes dead letters out of their stream.
--
-- KEYS: 1 dead letters, 2 letters to be posted again. ARGV: 1 "1" if they go there, or "0", 2 TTL (ms), 3 the number of the
-- oldest to take, 4... ids to take. Returns their number.

local taken = 0
local function take(entry)
  if ARGV[1] == '1' then redis.call('XADD', KEYS[2], '*', unpack(entry[2])) end
  redis.call('XDEL', KEYS[1], entry[1])
  taken = taken + 1
end
if ARGV[3] ~= '0' then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])) do take(entry) end
end
for i = 4, #ARGV do
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])) do take(entry) end
end
if ARGV[1] == '1' and taken > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return taken
