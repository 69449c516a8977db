-- Adds publications to a topic's stream and publishes them. Follows topic.lua in the publish scripts.
--
-- ARGV: 1 channel, 2 size, 3 stream TTL (ms), 4 meta TTL (ms), 5 fresh epoch, 6 the caller's lineage,
--       7 TTL bucket, 8 body.
-- Entries have the id `<offset>-0` and the field `d`, the body. A further field `j` says that the offset jumped,
-- and which one was the last before.

-- More offsets than a primary can have handed out without a replica that takes over having seen them.
local JUMP = 1048576

local function current_lineage()
  local info = redis.call('INFO', 'replication')
  return string.match(info, 'master_replid:(%w%w%w%w%w%w%w%w)') or ARGV[6]
end

-- Adds an entry, given by id and fields. Returns Redis' answer, and whether there was no stream before.
local function add_first(...)
  local added = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '=', ARGV[2], ...)
  if added then return added, false end
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], ...), true
end

-- Adds the bodies from ARGV[8] to ARGV[last]. Returns the epoch (8) and the first one's offset, or an error. If
-- there is an error nothing was done.
local function append(topic, last)
  local lineage, jumped_from = ARGV[6], nil
  if topic.lineage ~= lineage then
    -- The caller may be late: only the server itself knows its lineage.
    lineage = current_lineage()
    if not topic.lineage then
      if redis.call('EXISTS', KEYS[2]) == 1 then begin(topic, lineage, ARGV[4]) end
    elseif topic.lineage ~= lineage then
      -- Another primary wrote last, and its newest offsets may not have arrived here. They are never reused.
      jumped_from = string.format('%.0f', topic.offset)
      topic.offset = topic.offset + JUMP
    end
  end

  local ids = { string.format('%.0f', topic.offset + 1) }
  local added, is_new
  if jumped_from then
    added, is_new = add_first(ids[1], 'd', ARGV[8], 'j', jumped_from)
  else
    added, is_new = add_first(ids[1], 'd', ARGV[8])
  end
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    -- Meta and stream disagree, as after a restored key. A new epoch is the only honest way on.
    redis.call('DEL', KEYS[2])
    topic, ids, jumped_from = { epoch = ARGV[5], offset = 0, version = topic.version }, { '1' }, nil
    redis.call('XADD', KEYS[2], '1', 'd', ARGV[8])
    is_new = true
  end
  for index = 9, last do
    local id = string.format('%.0f', topic.offset + index - 7)
    ids[index - 7] = id
    if index < last then
      redis.call('XADD', KEYS[2], id, 'd', ARGV[index])
    else
      redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], id, 'd', ARGV[index])
    end
  end

  redis.call('SET', KEYS[1], '1' .. topic.epoch .. lineage .. ARGV[7] .. ids[#ids] .. topic.version, 'PX', ARGV[4])
  -- Renewing the TTL once in a bucket saves a call for each of the others. It is longer by a bucket than what was
  -- asked for. A stream may also be new within a bucket, if it was deleted or evicted.
  if is_new or topic.bucket ~= ARGV[7] then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
  for index, id in ipairs(ids) do
    local stamp = topic.epoch .. lineage .. id
    if jumped_from and index == 1 then stamp = stamp .. ' ' .. jumped_from end
    redis.call('PUBLISH', ARGV[1], '\1' .. stamp .. '\n' .. ARGV[index + 7])
  end
  return topic.epoch .. ids[1]
end
