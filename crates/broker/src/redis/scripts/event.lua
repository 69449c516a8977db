-- Writes the events of a topic's members to the outbox of the topic's slot. Follows clock.lua in the scripts that change
-- members: a member changes and its event is written in one step, so each event is written once, in order.
--
-- An entry has the fields: e the event, m the time (ms), t the topic, u the user, c the client, r and x the number and
-- the text of the reason. Events of a topic's first and last member have no user, those of users no topic.

-- The bits of a mask, see event_mask.rs, and the events of a topic and of a user.
local JOIN, LEAVE, OCCUPIED, VACATED = 1, 2, 4, 8
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

-- Returns the outbox. Fails before any write if its key has another program's value.
local function open_outbox(key, pending, now, topic, length_max, retention)
  redis.call('XLEN', key)
  return { key = key, pending = pending, now = now, topic = topic, length_max = length_max, retention = retention }
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
  redis.call('XADD', outbox.key, 'MAXLEN', '~', outbox.length_max, '*', unpack(fields))
  outbox.is_written = true
end

-- The event of the first or the last member.
local function write_state(outbox, event, mask)
  if string.sub(outbox.topic, 1, #USER_TOPIC) == USER_TOPIC then
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

-- The last member of a node was removed; there are `others` on other nodes. The topic is vacant when that is due, unless
-- it has members then. The others may be those of a dead node, who are removed later and went before.
local function write_vacancy(outbox, mask, due, others)
  if not has(mask, OCCUPIED) and not has(mask, VACATED) then return end
  if due > outbox.now then
    local kept = string.format('%.0f', due - outbox.now + PENDING_KEPT)
    redis.call('SET', outbox.pending, string.format('%.0f:%d', due, mask), 'PX', kept)
  elseif others == 0 then
    redis.call('DEL', outbox.pending)
    write_state(outbox, VACATED, mask)
  end
end

-- Returns when a pending vacancy is due.
local function pending_due(outbox)
  return tonumber(string.match(redis.call('GET', outbox.pending) or '', '^%d+')) or 0
end

-- Keeps the outbox for the retention. What is older in it is dropped by the node that works on outboxes.
local function close_outbox(outbox)
  if outbox.is_written then redis.call('PEXPIRE', outbox.key, outbox.retention) end
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
