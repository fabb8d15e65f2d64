-- Requeue a message that this worker has in work. If the worker no longer has it, another worker ran it: leave it there.
-- KEYS: the namespace. ARGV: worker id, queue, message id, the message.
local queue = KEYS[1] .. ":" .. ARGV[2]
if redis.call("srem", KEYS[1] .. ":__acks__." .. ARGV[1] .. "." .. ARGV[2], ARGV[3]) == 0 then
    return 0
end
redis.call("hset", queue .. ".msgs", ARGV[3], ARGV[4])
redis.call("rpush", queue, ARGV[3])
return 1
