-- Append an event to a dream's stream at most once and wake the gateways.
-- KEYS: stream, once-key
-- ARGV: event (JSON), longest stream, stream's life (s), once-key's life (s), channel, dream id
-- Returns the event's stream id, also where it had been appended before.
local before = redis.call('GET', KEYS[2])
if before then
  return before
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], id, 'EX', ARGV[4])
redis.call('PUBLISH', ARGV[5], cjson.encode({dream_id = ARGV[6], seq = id}))
return id
