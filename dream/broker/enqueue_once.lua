-- Put a message on a queue unless a queue of those named holds it already, or it is the one that its series sent last.
-- One that this worker has in work from another queue leaves that in the same step: the ack that follows may come late,
-- when the message has been there and back again.
-- KEYS: the namespace; of a series, the key that holds its last message id. ARGV: queue, message id, message, worker id,
-- the other queue, then the queues to ask.
local namespace = KEYS[1] .. ":"
local queue, id, message, worker, other = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
for i = 6, #ARGV do
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
-- Last: after a write, Redis would take the message though its memory is full.
if redis.call("srem", namespace .. "__acks__." .. worker .. "." .. other, id) == 1 then
    redis.call("hdel", namespace .. other .. ".msgs", id)
end
return 1
