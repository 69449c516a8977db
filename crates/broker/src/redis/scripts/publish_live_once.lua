-- Publishes without history unless the idempotency key is known.
--
-- KEYS: 1 idempotency key. ARGV: 1 channel, 2 frame, 3 idempotency TTL (ms).
-- Returns 1 if it was suppressed, else 0, and the first result: epoch (8) and offset, or '' without a position.

local first = redis.call('GET', KEYS[1])
if first then return { 1, first } end
redis.call('SET', KEYS[1], '', 'PX', ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return { 0, '' }
