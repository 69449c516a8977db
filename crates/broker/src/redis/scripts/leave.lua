-- What is said when a member goes. Prefixed to the scripts that take members out; whoever deletes a member says its
-- leave, in the same step, so it is said once.

-- The kind of body of a member whose leave is to be said, see frame.rs.
local ANNOUNCED = 6

local function say_leave(channel, body)
  if string.byte(body, 2) == ANNOUNCED then
    redis.call('PUBLISH', channel, '\1\n\1\3' .. string.sub(body, 3))
  end
end
