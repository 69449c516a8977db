-- Reads a topic's meta key. Prefixed to the scripts that need the position.
--
-- KEYS: 1 meta, 2 stream.
-- Meta is '1' (its format), epoch (8), lineage (8), TTL bucket (8), top offset in decimal, and, if versions are
-- used, a space, the last version, a space and its version epoch.

local FOREIGN = 'FOREIGN the key of a position holds something else'
local META = '^1(%w%w%w%w%w%w%w%w)(%w%w%w%w%w%w%w%w)(%w%w%w%w%w%w%w%w)(%d+)(.*)$'

-- Returns the stored topic; without lineage if it is new, nil if the key has another program's value.
local function open(fresh_epoch)
  local meta = redis.call('GET', KEYS[1])
  if not meta then return { epoch = fresh_epoch, offset = 0, version = '' } end
  local epoch, lineage, bucket, offset, version = string.match(meta, META)
  if not epoch then return nil end
  return { epoch = epoch, lineage = lineage, bucket = bucket, offset = tonumber(offset), version = version }
end

-- Not a bucket of any publish.
local NO_BUCKET = 'zzzzzzzz'

-- Stores a new topic's position, and deletes a stream whose position is gone. Fails before any write if that key is not
-- a stream. The deletion comes last: once a script has written, Redis accepts its other writes even if its memory is
-- full.
local function begin(topic, lineage, ttl)
  redis.call('XLEN', KEYS[2])
  redis.call('SET', KEYS[1], '1' .. topic.epoch .. lineage .. NO_BUCKET .. '0', 'PX', ttl)
  redis.call('DEL', KEYS[2])
end
