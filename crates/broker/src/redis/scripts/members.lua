-- Reads a page of a topic's members. Redis returns members in steps of unknown length: a step that does not fit is not
-- returned, unless it is the only one of its page.
--
-- KEYS: the members of each node, from the first that is not fully read.
-- ARGV: 1 the cursor in the first of them, 2 the bytes of a page, 3 the bytes that may still be read.
-- Returns how many of KEYS are fully read, or -1 if the bytes are exceeded; the cursor in the next; and the page:
-- client, body, client, body... Only the last page may be empty, and a member may be in more than one page.

-- The members in a step: few at first, since each may be long.
local FIRST_MEMBERS, MEMBERS_MAX = 2, 64

local cursor, page_bytes_max, bytes_max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local page, bytes, step = {}, 0, FIRST_MEMBERS
for index, key in ipairs(KEYS) do
  repeat
    local found = redis.call('HSCAN', key, cursor, 'COUNT', step)
    for _, text in ipairs(found[2]) do bytes = bytes + #text end
    if bytes > bytes_max then return { -1, '0', {} } end
    if bytes > page_bytes_max and #page > 0 then return { index - 1, cursor, page } end
    for _, text in ipairs(found[2]) do page[#page + 1] = text end
    cursor = found[1]
    step = math.min(2 * step, MEMBERS_MAX)
  until cursor == '0'
end
return { #KEYS, '0', page }
