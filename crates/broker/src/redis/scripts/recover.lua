-- Reads the entries that a reader missed, if all are available. Follows topic.lua, touch.lua and scan.lua.
--
-- ARGV: 5 the reader's offset, or '' to ask for the top alone, 6 its epoch, '' for any, 7 limit, 8 the most bytes,
--       9 '1' to return the first of the missed entries if not all fit.
-- Returns epoch, top, 1 if the answer is complete, 2 if it exceeds the limit, else 0, and the missed entries: offset,
-- body, offset, body...

local topic = touch()
if not topic then return redis.error_reply(FOREIGN) end
local top = string.format('%.0f', topic.offset)
local function answer(complete, entries) return { topic.epoch, top, complete, entries } end

if ARGV[5] == '' then return answer(1, {}) end
local offset, limit = tonumber(ARGV[5]), tonumber(ARGV[7])
if (ARGV[6] ~= '' and ARGV[6] ~= topic.epoch) or offset > topic.offset then return answer(0, {}) end
if offset == topic.offset then return answer(1, {}) end

local missed, bytes, bytes_max, flag = {}, 0, tonumber(ARGV[8]), 1
local is_part = ARGV[9] == '1'
scan('XRANGE', '(' .. ARGV[5] .. '-0', '+', limit + 1, function(id, fields)
  local follows = fields[3] == 'j' and tonumber(fields[4]) or tonumber(id) - 1
  bytes = bytes + #fields[2] + OVERHEAD_BYTES
  local is_over_limit = #missed == 2 * limit
  if follows ~= offset or (is_over_limit and not is_part) then
    flag = 0
  elseif is_over_limit or bytes > bytes_max then
    flag = 2
  else
    offset = tonumber(id)
    missed[#missed + 1] = id
    missed[#missed + 1] = fields[2]
  end
  return flag == 1
end)
if flag == 2 and is_part then return answer(2, missed) end
if flag ~= 1 then return answer(flag, {}) end
if offset ~= topic.offset then return answer(0, {}) end
return answer(1, missed)
