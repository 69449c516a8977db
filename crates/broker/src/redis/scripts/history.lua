-- Reads a page of history. Follows topic.lua, touch.lua and scan.lua.
--
-- ARGV: 5 the offset after which the page begins, or '', 6 its epoch, '' for any, 7 limit, 8 '1' for newest first,
-- 9 the most bytes. The first publication always fits.
-- Returns epoch, top, 0 if the epoch did not match, 1 if it did, 2 if the page ended at the bytes, and the page:
-- offset, body, offset, body...

local topic = touch()
if not topic then return redis.error_reply(FOREIGN) end
local top = string.format('%.0f', topic.offset)
if ARGV[5] ~= '' and ARGV[6] ~= '' and ARGV[6] ~= topic.epoch then return { topic.epoch, top, 0, {} } end

local page, bytes, bytes_max, flag = {}, 0, tonumber(ARGV[9]), 1
local function take(offset, fields)
  bytes = bytes + #fields[2] + OVERHEAD_BYTES
  if bytes > bytes_max and #page > 0 then
    flag = 2
    return false
  end
  page[#page + 1] = offset
  page[#page + 1] = fields[2]
  return true
end

local is_reverse = ARGV[8] == '1'
local after = ARGV[5] ~= '' and '(' .. ARGV[5] .. '-0' or nil
if not is_reverse then
  scan('XRANGE', after or '-', '+', tonumber(ARGV[7]), take)
elseif ARGV[5] ~= '0' then
  -- Redis refuses a range that ends before 0.
  scan('XREVRANGE', after or '+', '-', tonumber(ARGV[7]), take)
end
return { topic.epoch, top, flag, page }
