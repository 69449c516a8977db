-- Publishes into history. Follows topic.lua and append.lua.

local topic = open(ARGV[6])
if not topic then return redis.error_reply(FOREIGN) end
return append(topic)
