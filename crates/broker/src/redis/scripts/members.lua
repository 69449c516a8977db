-- Reads a page of a topic's members: what does not fit the page is not read.
--
-- KEYS: the members of each node, from the first that was not read whole.
-- ARGV: 1 the cursor in the first of them, 2 bytes.
-- Returns how many of KEYS are read whole, the cursor in the next, and the page: client, body, client, body... Only the
-- last page may be empty, and a member may be in more than one.

-- Members that are read at once: few at first, since each may be long.
local FIRST_MEMBERS, MEMBERS_MAX = 2, 64

local cursor, left, piece = ARGV[1], tonumber(ARGV[2]), FIRST_MEMBERS
local page = {}
for index, key in ipairs(KEYS) do
  repeat
    local found = redis.call('HSCAN', key, cursor, 'COUNT', piece)
    cursor = found[1]
    for _, text in ipairs(found[2]) do
      page[#page + 1] = text
      left = left - #text
    end
    if left < 0 then return { cursor == '0' and index or index - 1, cursor, page } end
    piece = math.min(2 * piece, MEMBERS_MAX)
  until cursor == '0'
end
return { #KEYS, '0', page }
