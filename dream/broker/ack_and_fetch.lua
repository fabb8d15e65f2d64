-- A worker's one question: forget what it has done, and hand it what waits.
-- KEYS: the namespace. ARGV: worker id, queue, how many messages at most, then the ids of those that are done.
-- Returns the messages.
local namespace = KEYS[1] .. ":"
local worker, queue = ARGV[1], namespace .. ARGV[2]
local acks = namespace .. "__acks__." .. worker .. "." .. ARGV[2]
local now = redis.call("time")
redis.call("zadd", namespace .. "__heartbeats__", now[1] * 1000 + math.floor(now[2] / 1000), worker)
for i = 4, #ARGV do
    if redis.call("srem", acks, ARGV[i]) == 1 then
        redis.call("hdel", queue .. ".msgs", ARGV[i])
    end
end
local messages = {}
while #messages < tonumber(ARGV[3]) do
    local id = redis.call("lpop", queue)
    if not id then
        break
    end
    local message = redis.call("hget", queue .. ".msgs", id)
    if message then
        redis.call("sadd", acks, id)
        messages[#messages + 1] = message
    end
end
return messages
