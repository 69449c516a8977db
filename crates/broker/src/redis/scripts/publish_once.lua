-- Publishes with history unless the idempotency key is known or the version is old. Follows topic.lua and
-- append.lua.
--
-- KEYS: 3 idempotency key, if there is one.
-- ARGV: 9 version or '', 10 version epoch, 11 idempotency TTL (ms).
-- Returns 1 if it was suppressed, else 0, and epoch (8) and offset of the first result, of the top or of this one.

if KEYS[3] then
  local first = redis.call('GET', KEYS[3])
  if first then return { 1, first } end
end
local topic = open(ARGV[5])
if not topic then return redis.error_reply(FOREIGN) end

if ARGV[9] ~= '' then
  local seen, seen_epoch = string.match(topic.version, '^ (%d+) (.*)$')
  -- Compared as text, since versions may exceed the exact numbers of Lua.
  local is_newer = not seen or seen_epoch ~= ARGV[10] or #ARGV[9] > #seen or (#ARGV[9] == #seen and ARGV[9] > seen)
  if not is_newer then return { 1, topic.epoch .. string.format('%.0f', topic.offset) } end
  topic.version = ' ' .. ARGV[9] .. ' ' .. ARGV[10]
end

local position = append(topic, 8)
if type(position) == 'table' then return position end
if KEYS[3] then redis.call('SET', KEYS[3], position, 'PX', ARGV[11]) end
return { 0, position }
