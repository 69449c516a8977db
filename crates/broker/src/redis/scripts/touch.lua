-- Keeps a topic's position alive, and starts its epoch if it has none. Follows topic.lua in the read scripts.
--
-- ARGV: 1 fresh epoch, 2 the caller's lineage, 3 meta TTL (ms), 4 the same without any publication.

-- Returns the topic, or nil if the key has another program's value.
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
