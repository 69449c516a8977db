-- Publishes one or more publications with history. Their bodies are the last arguments. Follows topic.lua and
-- append.lua.

local topic = open(ARGV[5])
if not topic then return redis.error_reply(FOREIGN) end
return append(topic, #ARGV)
