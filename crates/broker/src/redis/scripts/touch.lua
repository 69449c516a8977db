-- Keeps a topic's position alive, and starts its epoch if it has none. Follows topic.lua in the reading scripts.
--
-- ARGV: 1 fresh epoch, 2 the caller's lineage, 3 meta TTL (ms), 4 the same as long as nothing was published.

-- The topic, or nil if the key is not ours.
local function touch()
  local topic = open(ARGV[1])
  if not topic then return nil end
  if topic.lineage then
    redis.call('PEXPIRE', KEYS[1], topic.offset > 0 and ARGV[3] or ARGV[4])
  else
    begin(topic, ARGV[2], ARGV[4])
  end
  return topic
end
