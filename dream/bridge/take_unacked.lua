-- Take what workers of Celery have taken and not acknowledged.
-- KEYS: hash of what is in flight, counter of what was ever taken, `unacked`, `unacked_index`
-- ARGV: how many bytes (one message more than fit), then tags in `unacked`; those that are gone are left out
-- Returns tag, value, tag, value, …; a value is "\n<[message, exchange, routing key]>".
local taken = {}
local left_bytes = tonumber(ARGV[1])
for i = 2, #ARGV do
  if left_bytes <= 0 then break end
  local message = redis.call('HGET', KEYS[3], ARGV[i])
  redis.call('ZREM', KEYS[4], ARGV[i])
  if message then
    local tag = tostring(redis.call('INCR', KEYS[2]))
    redis.call('HSET', KEYS[1], tag, '\n' .. message)
    redis.call('HDEL', KEYS[3], ARGV[i])
    taken[#taken + 1] = tag
    taken[#taken + 1] = '\n' .. message
    left_bytes = left_bytes - #message
  end
end
return taken
