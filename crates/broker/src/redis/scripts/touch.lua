-- Keeps a topic's position alive, and starts its epoch if it has none. Follows topic.lua in the reading scripts.
--
-- ARGV: 1 fresh epoch, 2 the caller's lineage, 3 meta TTL (ms).

-- No bucket that a publish could have.
local NO_BUCKET = 'zzzzzzzz'

-- The topic, or nil if the key is not ours.
local function touch()
  local topic = open(ARGV[1])
  if not topic then return nil end
  if topic.lineage then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  else
    forget_stream()
    redis.call('SET', KEYS[1], '1' .. topic.epoch .. ARGV[2] .. NO_BUCKET .. '0', 'PX', ARGV[3])
  end
  return topic
end
