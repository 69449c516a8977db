-- Adds publications to a topic's stream and publishes them. Follows topic.lua in the publish scripts.
--
-- ARGV: 1 channel, 2 size, 3 stream TTL (ms), 4 meta TTL (ms), 5 fresh epoch, 6 the caller's lineage,
--       7 TTL bucket, 8 body.
-- Entries have the id `<offset>-0` and the field `d`, the body. A further field `j` is the last offset before a jump.

-- More offsets than a primary can have assigned that a replica, which becomes primary, has not seen.
local JUMP = 1048576

local function current_lineage()
  local info = redis.call('INFO', 'replication')
  return string.match(info, 'master_replid:(%w%w%w%w%w%w%w%w)') or ARGV[6]
end

-- Adds an entry, given by id and fields. Returns Redis' answer, and true if there was no stream before.
local function add_first(...)
  local added = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', 'MAXLEN', '=', ARGV[2], ...)
  if added then return added, false end
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], ...), true
end

-- Adds the bodies from ARGV[8] to ARGV[last]. Returns the epoch (8) and the offset of the first, or an error, after
-- which nothing has changed.
local function append(topic, last)
  local lineage, jumped_from = ARGV[6], nil
  if topic.lineage ~= lineage then
    -- The caller's lineage may be outdated: only the server knows its own.
    lineage = current_lineage()
    if not topic.lineage then
      if redis.call('EXISTS', KEYS[2]) == 1 then begin(topic, lineage, ARGV[4]) end
    elseif topic.lineage ~= lineage then
      -- Another primary wrote last, and its newest offsets may not have been replicated. They are not reused.
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
    -- Meta and stream disagree, for example after a key was restored. Only a new epoch is safe.
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
  -- The TTL is renewed once in a bucket, which saves a call for each further publication, and is a bucket longer than
  -- requested. A stream may also be new within a bucket, after it was deleted or evicted.
  if is_new or topic.bucket ~= ARGV[7] then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
  for index, id in ipairs(ids) do
    local stamp = topic.epoch .. lineage .. id
    if jumped_from and index == 1 then stamp = stamp .. ' ' .. jumped_from end
    redis.call('PUBLISH', ARGV[1], '\1' .. stamp .. '\n' .. ARGV[index + 7])
  end
  return topic.epoch .. ids[1]
end
