-- Take messages from Celery's lists: each is in flight in the step in which it leaves its list.
-- KEYS: hash of what is in flight, counter of what was ever taken
-- ARGV: how many, how many bytes (one message more than fit), then pairs of queue and list
-- Returns tag, value, tag, value, …; a value is "<queue>\n<message>".
local taken = {}
local left = tonumber(ARGV[1])
local bytes = tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  while left > 0 and bytes > 0 do
    local message = redis.call('RPOP', ARGV[i + 1])
    if not message then break end
    local tag = tostring(redis.call('INCR', KEYS[2]))
    local value = ARGV[i] .. '\n' .. message
    redis.call('HSET', KEYS[1], tag, value)
    taken[#taken + 1] = tag
    taken[#taken + 1] = value
    left = left - 1
    bytes = bytes - #message
  end
end
return taken
