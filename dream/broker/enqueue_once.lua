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
if KEYS[2] and redis.call("get", KEYS[2]) == id then
    return 0
end
local acks = namespace .. "__acks__." .. worker .. "." .. other
-- Asked before it is removed: after a write, Redis would take any message though its memory is full. One that only moves
-- takes no more than it did.
if redis.call("sismember", acks, id) == 1 then
    redis.call("srem", acks, id)
    redis.call("hdel", namespace .. other .. ".msgs", id)
end
if KEYS[2] then
    redis.call("set", KEYS[2], id)
end
redis.call("hset", namespace .. queue .. ".msgs", id, message)
redis.call("rpush", namespace .. queue, id)
return 1
