-- Adds a client to presence unless too many others are present. Follows clock.lua, seen.lua and event.lua.
--
-- KEYS: 1 the node's members, 2 counts; with events, 3... those of open_outbox.
-- ARGV: 1 client, 2 body, 3 incarnation, 4 the node's users with the client, 5 the number of other members that the
--       node knows, 6 the most other members, 7 TTL (ms), 8 '1' if unlisted nodes are dead; with events, 9 to 13
--       those of open_outbox, 14 the end of the node's lease (ms), and without, six empty; 15... the other live nodes.
-- Returns 1 if the client was added, 0 if not, -1 if there is an unlisted node, -2 if the lease has ended.

local outbox
if KEYS[3] then
  local now = clock()
  if now >= tonumber(ARGV[14]) then return -2 end
  outbox = open_outbox(now, 3, 9)
end
local lives = {}
for i = 15, #ARGV do lives[ARGV[i]] = true end

-- After a loss of data in Redis the node may know more of its members.
local own = redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], ARGV[1])
own = math.max(own, tonumber(ARGV[5]))
local others = own
local counts = redis.call('HGETALL', KEYS[2])
for i = 1, #counts, 2 do
  local node, clients = counts[i], tonumber(string.match(counts[i + 1], '^%d+')) or 0
  if node ~= ARGV[3] then
    if lives[node] then
      others = others + clients
    elseif ARGV[8] ~= '1' then
      return -1
    end
  end
end
if others >= tonumber(ARGV[6]) then return 0 end

local all
if outbox then
  local stored, elsewhere = count_members(KEYS[1], KEYS[2], ARGV[3])
  all = stored + elsewhere
end
local is_new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1
redis.call('HSET', KEYS[2], ARGV[3], own + 1 .. ':' .. ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
if outbox then
  if is_new then write_join(outbox, ARGV[2], all) end
  close_outbox(outbox)
end
return 1
