-- Adds publications to a topic's stream and publishes them. Follows topic.lua in the publish scripts.
--
-- ARGV: 1 channel, 2 size, 3 history TTL (ms), 4 meta TTL (ms), 5 fresh epoch, 6 the caller's lineage,
--       7 TTL bucket, 8 body.
-- Entries have the id `<offset>-0` and the field `d`, the body. A further field `j` says that the offset jumped,
-- and which one was the last before.

-- More offsets than a primary can have handed out without a replica that takes over having seen them.
local JUMP = 1048576

local function current_lineage()
  local info = redis.call('INFO', 'replication')
  return string.match(info, 'master_replid:(%w%w%w%w%w%w%w%w)') or ARGV[6]
end

-- Adds ARGV[index] to the stream, and trims the stream if that is the last.
local function add(run, id, index, last, jumped_from)
  if jumped_from then
    return run('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], id, 'd', ARGV[index], 'j', jumped_from)
  elseif index < last then
    return run('XADD', KEYS[2], id, 'd', ARGV[index])
  end
  return run('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], id, 'd', ARGV[index])
end

-- Adds the bodies from ARGV[8] to ARGV[last]. Returns the epoch (8) and the first one's offset, or an error. If
-- there is an error nothing was done.
local function append(topic, last)
  local lineage, jumped_from = ARGV[6], nil
  if topic.lineage ~= lineage then
    -- The caller may be late: only the server itself knows its lineage.
    lineage = current_lineage()
    if not topic.lineage then
      forget_stream()
    elseif topic.lineage ~= lineage then
      -- Another primary wrote last, and its newest offsets may not have arrived here. They are never reused.
      jumped_from = string.format('%.0f', topic.offset)
      topic.offset = topic.offset + JUMP
    end
  end

  local ids = { string.format('%.0f', topic.offset + 1) }
  local added = add(redis.pcall, ids[1], 8, last, jumped_from)
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    -- Meta and stream disagree, as after a restored key. A new epoch is the only honest way on.
    redis.call('DEL', KEYS[2])
    topic, ids, jumped_from = { epoch = ARGV[5], offset = 0, version = '' }, { '1' }, nil
    add(redis.call, '1', 8, last)
  end
  for index = 9, last do
    ids[index - 7] = string.format('%.0f', topic.offset + index - 7)
    add(redis.call, ids[index - 7], index, last)
  end

  redis.call('SET', KEYS[1], '1' .. topic.epoch .. lineage .. ARGV[7] .. ids[#ids] .. topic.version, 'PX', ARGV[4])
  -- Renewing the TTL once in a bucket, an eighth of it, saves a call for each of the others.
  if topic.bucket ~= ARGV[7] then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
  for index, id in ipairs(ids) do
    local stamp = topic.epoch .. lineage .. id
    if jumped_from and index == 1 then stamp = stamp .. ' ' .. jumped_from end
    redis.call('PUBLISH', ARGV[1], '\1' .. stamp .. '\n' .. ARGV[index + 7])
  end
  return topic.epoch .. ids[1]
end
