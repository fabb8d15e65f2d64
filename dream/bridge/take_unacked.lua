-- Take what workers of Celery have taken and not acknowledged.
-- KEYS: hash of what is in flight, counter of what was ever taken, `unacked`, `unacked_index`
-- ARGV: how many, how many bytes (one message more than fit), and the time (seconds) before which it was taken by a
--   worker; empty means all of it
-- Returns tag, value, tag, value, …; a value is "\n<[message, exchange, routing key]>".
local tags
if ARGV[3] == '' then
  tags = redis.call('HKEYS', KEYS[3])
else
  tags = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[3], 'LIMIT', 0, ARGV[1])
end
local taken = {}
local bytes = tonumber(ARGV[2])
for i = 1, math.min(#tags, tonumber(ARGV[1])) do
  if bytes <= 0 then break end
  local message = redis.call('HGET', KEYS[3], tags[i])
  redis.call('ZREM', KEYS[4], tags[i])
  if message then
    local tag = tostring(redis.call('INCR', KEYS[2]))
    redis.call('HSET', KEYS[1], tag, '\n' .. message)
    redis.call('HDEL', KEYS[3], tags[i])
    bytes = bytes - #message
    taken[#taken + 1] = tag
    taken[#taken + 1] = '\n' .. message
  end
end
return taken
