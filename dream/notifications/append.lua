-- Append an event to a dream's stream at most once and wake the gateways.
-- KEYS: stream, told-hash (a task's, or an event's own), and the once-key and end-key of older releases, which are read
-- ARGV: event (JSON), longest stream, stream's life (s), told-hash's life (s), channel, dream id, '1' for a task's end,
--   '1' where a task speaks, the event's name in the hash, and perhaps the span that publishes (W3C's traceparent)
-- Returns the event's stream id, also where it had been appended before; that of the end where the task has ended.
local told, name = KEYS[2], ARGV[9]
local before = redis.call('HGET', told, name) or redis.call('GET', KEYS[3])
if before then
  return before
end
local of_task, is_end = ARGV[8] == '1', ARGV[7] == '1'
local ended = of_task and not is_end and (redis.call('HGET', told, 'end') or redis.call('GET', KEYS[4]))
if ended then
  return ended
end
local entry = {'event', ARGV[1]}
if ARGV[10] then
  entry[3], entry[4] = 'traceparent', ARGV[10]
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
redis.call('EXPIRE', KEYS[1], ARGV[3])
if of_task and is_end then
  -- After the end no event of its course is appended, so forget those.
  redis.call('DEL', told)
  redis.call('HSET', told, 'end', id)
end
redis.call('HSET', told, name, id)
redis.call('EXPIRE', told, ARGV[4])
redis.call('PUBLISH', ARGV[5], cjson.encode({dream_id = ARGV[6], seq = id}))
return id
