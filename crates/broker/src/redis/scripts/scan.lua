-- Reads entries of a stream in pieces, for the read scripts: entries that do not fit the answer are not read.

-- The overhead of a publication in an answer, as every engine counts it.
local OVERHEAD_BYTES = 64

-- The entries in a piece: few at first, since each may be long.
local FIRST_ENTRIES, ENTRIES_MAX = 2, 64

-- Calls `take` with the id and the fields of each entry, until it returns false or `limit` is reached.
-- `command` is XRANGE or XREVRANGE, `from` and `to` are its arguments.
local function scan(command, from, to, limit, take)
  local piece = FIRST_ENTRIES
  while limit > 0 do
    local count = math.min(piece, limit)
    local found = redis.call(command, KEYS[2], from, to, 'COUNT', string.format('%.0f', count))
    for _, entry in ipairs(found) do
      if not take(string.match(entry[1], '^%d+'), entry[2]) then return end
    end
    if #found < count then return end
    from = '(' .. found[#found][1]
    limit = limit - count
    piece = math.min(2 * piece, ENTRIES_MAX)
  end
end

