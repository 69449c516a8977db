-- Writes the events of a topic's members to the outbox of the topic's slot. Follows clock.lua and seen.lua in the scripts that change
-- members: a member changes and its event is written in one step, so each event is written once, in order.
--
-- An entry has the fields: e the event, m the time (ms), t the topic, u the user, c the client, r and x the number and
-- the text of the reason. Events of a topic's first and last member have no user, those of users no topic.
--
-- The status of a user is published where its first and last member are told, and when it was last seen is kept.

-- The bits of a mask, see event_mask.rs, and the events of a topic and of a user.
local JOIN, LEAVE, OCCUPIED, VACATED, STATUS = 1, 2, 4, 8, 16
local OF_TOPIC = {
  [JOIN] = 'subscribed', [LEAVE] = 'unsubscribed', [OCCUPIED] = 'topic_occupied', [VACATED] = 'topic_vacated',
}
local OF_USER = {
  [JOIN] = 'connected', [LEAVE] = 'disconnected', [OCCUPIED] = 'user_online', [VACATED] = 'user_offline',
}
-- The cluster's own topics, which have a user's connections for members.
local USER_TOPIC = '!user:'

-- The fields of a member's body that events need, see frame.rs.
local CLIENT, USER, EVENTS = 1, 2, 6

local UUID = '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'

-- The time that a pending vacancy outlives its due time.
local PENDING_KEPT = 3600000

local function has(mask, event) return mask % (2 * event) >= event end

-- Returns the outbox. From KEYS[key] on are its key, that of the pending vacancy, and that of when the user was last seen,
-- if status is kept. From ARGV[argument] on are topic, length, retention (ms), the topic's channel, and the TTL of last seen
-- (ms). Fails before any write if a key has another program's value.
local function open_outbox(now, key, argument)
  local outbox = {
    now = now, key = KEYS[key], pending = KEYS[key + 1], seen_key = KEYS[key + 2], topic = ARGV[argument],
    length_max = tonumber(ARGV[argument + 1]), retention = ARGV[argument + 2], channel = ARGV[argument + 3],
    seen_ttl = ARGV[argument + 4],
  }
  outbox.length = redis.call('XLEN', outbox.key)
  if outbox.seen_key then outbox.seen, outbox.beat = read_seen(outbox.seen_key) end
  return outbox
end

-- Keeps when the user was last seen, and until when its heartbeat counts.
local function keep_seen(outbox, seen, beat)
  outbox.seen, outbox.beat = math.max(outbox.seen, seen), math.max(outbox.beat, beat)
  local text = string.format('%.0f:%.0f', outbox.seen, outbox.beat)
  redis.call('SET', outbox.seen_key, text, 'PX', outbox.seen_ttl)
end

-- Publishes the status of the topic's user, as an unstamped publication with its time; see frame.rs.
local function publish_status(outbox, is_online)
  local user = cjson.encode(string.sub(outbox.topic, #USER_TOPIC + 1))
  local seen = is_online and outbox.now or outbox.seen
  local data = string.format('{"user":%s,"online":%s,"last_seen":%.0f}', user, tostring(is_online), seen)
  local time, left = {}, outbox.now
  for i = 6, 1, -1 do
    time[i] = string.char(left % 256)
    left = math.floor(left / 256)
  end
  redis.call('PUBLISH', outbox.channel, '\1\n\1\1\7\6' .. table.concat(time) .. '\0' .. data)
end

-- Returns client, user and mask of a member.
local function read_member(body)
  local fields, at = {}, 3
  while at <= #body do
    local field = string.byte(body, at)
    if field == 0 then break end
    local length, unit, byte = 0, 1, nil
    repeat
      at = at + 1
      byte = string.byte(body, at) or 0
      length = length + byte % 128 * unit
      unit = unit * 128
    until byte < 128
    fields[field] = string.sub(body, at + 1, at + length)
    at = at + length + 1
  end
  local client = fields[CLIENT] or ''
  return { client = #client == 16 and string.format(UUID, string.byte(client, 1, 16)) or '', user = fields[USER] or '', mask = string.byte(fields[EVENTS] or '\0') }
end

local function write_event(outbox, event, mask, ...)
  if not has(mask, event) then return end
  local is_of_user = string.sub(outbox.topic, 1, 1) == '!'
  local fields = { 'e', (is_of_user and OF_USER or OF_TOPIC)[event], 'm', string.format('%.0f', outbox.now) }
  if not is_of_user then
    fields[#fields + 1] = 't'
    fields[#fields + 1] = outbox.topic
  end
  for _, text in ipairs({ ... }) do fields[#fields + 1] = text end
  redis.call('XADD', outbox.key, '*', unpack(fields))
  outbox.length = outbox.length + 1
  outbox.is_written = true
end

-- The event of the first or the last member.
local function write_state(outbox, event, mask)
  if string.sub(outbox.topic, 1, #USER_TOPIC) == USER_TOPIC then
    if outbox.seen_key and has(mask, STATUS) then publish_status(outbox, event == OCCUPIED) end
    write_event(outbox, event, mask, 'u', string.sub(outbox.topic, #USER_TOPIC + 1))
  else
    write_event(outbox, event, mask)
  end
end

-- A member was added; there were `others` before it.
local function write_join(outbox, body, others)
  local member = read_member(body)
  if others == 0 and redis.call('DEL', outbox.pending) == 0 then write_state(outbox, OCCUPIED, member.mask) end
  write_event(outbox, JOIN, member.mask, 'u', member.user, 'c', member.client)
end

-- A member was removed. Returns its mask.
local function write_leave(outbox, body, code, text)
  local member = read_member(body)
  write_event(outbox, LEAVE, member.mask, 'u', member.user, 'c', member.client, 'r', code, 'x', text)
  return member.mask
end

-- The topic is vacant when that is due, unless it has members then.
local function pend_vacancy(outbox, mask, due)
  local kept = string.format('%.0f', due - outbox.now + PENDING_KEPT)
  redis.call('SET', outbox.pending, string.format('%.0f:%d', due, mask), 'PX', kept)
end

-- The last member of a node was removed, and has been `gone` for some time (ms); there are `others` on other nodes. The topic
-- is vacant when that is due, and its user's heartbeat over. The others may be those of a dead node, who are removed later
-- and went before.
local function write_vacancy(outbox, mask, due, others, gone)
  if not has(mask, OCCUPIED) and not has(mask, VACATED) and not has(mask, STATUS) then return end
  if outbox.seen_key and has(mask, STATUS) then
    keep_seen(outbox, outbox.now - gone, 0)
    due = math.max(due, outbox.beat)
  end
  if due > outbox.now then
    pend_vacancy(outbox, mask, due)
  elseif others == 0 then
    redis.call('DEL', outbox.pending)
    write_state(outbox, VACATED, mask)
  end
end

-- Returns when a pending vacancy is due, or 0.
local function pending_due(outbox)
  return tonumber(string.match(redis.call('GET', outbox.pending) or '', '^%d+')) or 0
end

-- Keeps the outbox for the retention. What is older in it is dropped by the node that works on outboxes.
local function close_outbox(outbox)
  if not outbox.is_written then return end
  redis.call('PEXPIRE', outbox.key, outbox.retention)
  if outbox.length <= outbox.length_max then return end
  local dropped = redis.call('XTRIM', outbox.key, 'MAXLEN', '~', string.format('%.0f', outbox.length_max))
  if dropped > 0 then
    -- Beside the outbox, for the node that works on outboxes to count.
    local count = string.gsub(outbox.key, 'ev:{', 'evn:{')
    redis.call('INCRBY', count, dropped)
    redis.call('PEXPIRE', count, outbox.retention)
  end
end

-- Returns the numbers of a topic's members: on the node, and on all others, of which dead ones count until they are
-- reaped.
local function count_members(members, counts, incarnation)
  local others = 0
  local all = redis.call('HGETALL', counts)
  for i = 1, #all, 2 do
    if all[i] ~= incarnation then others = others + (tonumber(string.match(all[i + 1], '^%d+')) or 0) end
  end
  return members and redis.call('HLEN', members) or 0, others
end
