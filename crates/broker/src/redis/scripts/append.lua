-- Adds one publication to a topic's stream and publishes it. Follows topic.lua in the publish scripts.
--
-- ARGV: 1 channel, 2 body, 3 size, 4 history TTL (ms), 5 meta TTL (ms), 6 fresh epoch, 7 the caller's lineage,
--       8 TTL bucket.
-- Entries have the id `<offset>-0` and the field `d`, the body. A further field `j` says that the offset jumped,
-- and which one was the last before.

-- More offsets than a primary can have handed out without a replica that takes over having seen them.
local JUMP = 1048576

local function current_lineage()
  local info = redis.call('INFO', 'replication')
  return string.match(info, 'master_replid:(%w%w%w%w%w%w%w%w)') or ARGV[7]
end

-- Returns epoch (8) and offset, or an error.
local function append(topic)
  local lineage, jumped_from = ARGV[7], nil
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

  local id = string.format('%.0f', topic.offset + 1)
  local added
  if jumped_from then
    added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[3], id, 'd', ARGV[2], 'j', jumped_from)
  else
    added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[3], id, 'd', ARGV[2])
  end
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    -- Meta and stream disagree, as after a restored key. A new epoch is the only honest way on.
    redis.call('DEL', KEYS[2])
    topic, id, jumped_from = { epoch = ARGV[6], version = '' }, '1', nil
    redis.call('XADD', KEYS[2], id, 'd', ARGV[2])
  end

  redis.call('SET', KEYS[1], '1' .. topic.epoch .. lineage .. ARGV[8] .. id .. topic.version, 'PX', ARGV[5])
  -- Renewing the TTL once in a bucket, an eighth of it, saves a call for each of the others.
  if topic.bucket ~= ARGV[8] then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
  local stamp = topic.epoch .. lineage .. id
  if jumped_from then stamp = stamp .. ' ' .. jumped_from end
  redis.call('PUBLISH', ARGV[1], '\1' .. stamp .. '\n' .. ARGV[2])
  return topic.epoch .. id
end
