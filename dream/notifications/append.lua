-- Append an event to a dream's stream at most once and wake the gateways.
-- KEYS: stream, once-key, and where a task speaks its end-key
-- ARGV: event (JSON), longest stream, stream's life (s), once-key's life (s), channel, dream id, '1' for a task's end
-- Returns the event's stream id, also where it had been appended before; that of the end where the task has ended.
local before = redis.call('GET', KEYS[2])
if before then
  return before
end
local is_end = ARGV[7] == '1'
local ended = KEYS[3] and not is_end and redis.call('GET', KEYS[3])
if ended then
  return ended
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'event', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], id, 'EX', ARGV[4])
if KEYS[3] and is_end then
  redis.call('SET', KEYS[3], id, 'EX', ARGV[3])
end
redis.call('PUBLISH', ARGV[5], cjson.encode({dream_id = ARGV[6], seq = id}))
return id
