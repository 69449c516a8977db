-- Publishes the leave of a removed member. Prefixed to the scripts that remove members: a member is deleted and its
-- leave published in one step, so the leave is published once.

-- The body's kind of a member whose leave is announced, see frame.rs.
local ANNOUNCED = 6

local function say_leave(channel, body)
  if string.byte(body, 2) == ANNOUNCED then
    redis.call('PUBLISH', channel, '\1\n\1\3' .. string.sub(body, 3))
  end
end
