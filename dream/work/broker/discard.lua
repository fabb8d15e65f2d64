-- Delete the messages that wait on a queue; messages in work stay. Returns how many.
-- KEYS: the namespace. ARGV: queue.
local queue = KEYS[1] .. ":" .. ARGV[1]
local count = 0
local lined_up = dissolve(queue)
for _, ids in ipairs({ lined_up, redis.call("lrange", queue, 0, -1), redis.call("zrange", queue .. ".due", 0, -1) }) do
    for first = 1, #ids, 1000 do
        redis.call("hdel", queue .. ".msgs", unpack(ids, first, math.min(first + 999, #ids)))
    end
    count = count + #ids
end
redis.call("del", queue, queue .. ".due")
return count
