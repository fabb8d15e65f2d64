-- Put a message on a queue unless a queue of those named holds it already, or it is the one that its series sent last.
-- KEYS: the namespace; of a series, the key that holds its last message id. ARGV: queue, message id, message, then the
-- queues to ask.
local namespace = KEYS[1] .. ":"
local queue, id, message = ARGV[1], ARGV[2], ARGV[3]
for i = 4, #ARGV do
    if redis.call("hexists", namespace .. ARGV[i] .. ".msgs", id) == 1 then
        return 0
    end
end
if KEYS[2] then
    if redis.call("get", KEYS[2]) == id then
        return 0
    end
    redis.call("set", KEYS[2], id)
end
redis.call("hset", namespace .. queue .. ".msgs", id, message)
redis.call("rpush", namespace .. queue, id)
return 1
