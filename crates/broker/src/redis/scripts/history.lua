-- A page of what is kept. Follows topic.lua and touch.lua.
--
-- ARGV: 5 the offset that the page begins after, or '', 6 its epoch, '' for any, 7 limit, 8 '1' for newest first.
-- Returns epoch, top, whether the epoch matched, and the page: offset, body, offset, body...

local topic = touch()
if not topic then return redis.error_reply(FOREIGN) end
local top = string.format('%.0f', topic.offset)
if ARGV[5] ~= '' and ARGV[6] ~= '' and ARGV[6] ~= topic.epoch then return { topic.epoch, top, 0, {} } end

local page = {}
local is_reverse = ARGV[8] == '1'
-- Redis refuses a range that ends before 0.
local is_empty = ARGV[7] == '0' or (is_reverse and ARGV[5] == '0')
if not is_empty then
  local after = ARGV[5] ~= '' and '(' .. ARGV[5] .. '-0' or nil
  local found
  if is_reverse then
    found = redis.call('XREVRANGE', KEYS[2], after or '+', '-', 'COUNT', ARGV[7])
  else
    found = redis.call('XRANGE', KEYS[2], after or '-', '+', 'COUNT', ARGV[7])
  end
  for _, entry in ipairs(found) do
    page[#page + 1] = string.match(entry[1], '^%d+')
    page[#page + 1] = entry[2][2]
  end
end
return { topic.epoch, top, 1, page }
