-- Put a message on a queue, unless one of the queues to ask has it already, or its series sent it last.
-- A message that this worker has in work from another queue leaves that queue in the same step: the ack that follows may
-- come late, after the message has been to the new queue and back.
-- KEYS: the namespace; for a message of a series, the key of the series' last message id.
-- ARGV: queue, message id, message, worker id, the other queue, then the queues to ask. Returns 1, or 0 if it is there.
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
-- Asked before it is removed: after a write, Redis would take any message though its memory is full. A message that only
-- moves takes no more memory than before.
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
