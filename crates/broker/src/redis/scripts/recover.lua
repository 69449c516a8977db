-- All that a reader missed, if it can be had. Follows topic.lua and touch.lua.
--
-- ARGV: 5 the reader's offset, or '' to ask for the top alone, 6 its epoch, '' for any, 7 limit.
-- Returns epoch, top, whether the answer is complete, and the missed entries: offset, body, offset, body...

local topic = touch()
if not topic then return redis.error_reply(FOREIGN) end
local top = string.format('%.0f', topic.offset)
local function answer(complete, entries) return { topic.epoch, top, complete, entries } end

if ARGV[5] == '' then return answer(1, {}) end
local offset, limit = tonumber(ARGV[5]), tonumber(ARGV[7])
if (ARGV[6] ~= '' and ARGV[6] ~= topic.epoch) or offset > topic.offset then return answer(0, {}) end
if offset == topic.offset then return answer(1, {}) end

local missed = {}
local found = redis.call('XRANGE', KEYS[2], '(' .. ARGV[5] .. '-0', '+', 'COUNT', string.format('%.0f', limit + 1))
if #found > limit then return answer(0, {}) end
for _, entry in ipairs(found) do
  local id, fields = string.match(entry[1], '^%d+'), entry[2]
  local follows = fields[3] == 'j' and tonumber(fields[4]) or tonumber(id) - 1
  if follows ~= offset then return answer(0, {}) end
  offset = tonumber(id)
  missed[#missed + 1] = id
  missed[#missed + 1] = fields[2]
end
if offset ~= topic.offset then return answer(0, {}) end
return answer(1, missed)
