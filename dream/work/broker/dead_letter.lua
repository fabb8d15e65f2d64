-- Move a fetched message that cannot be decoded to the dead letters. Its bytes hide its id, so they are compared with
-- the few messages that this worker has fetched. Returns the id.
-- KEYS: the namespace. ARGV: worker id, queue, queue of the dead letters, the message's bytes.
local queue = KEYS[1] .. ":" .. ARGV[2]
local acks = KEYS[1] .. ":__acks__." .. ARGV[1] .. "." .. ARGV[2]
local dead_letters = KEYS[1] .. ":" .. ARGV[3]
local now = redis.call("time")
for _, id in ipairs(redis.call("smembers", acks)) do
    if redis.call("hget", queue .. ".msgs", id) == ARGV[4] then
        redis.call("srem", acks, id)
        redis.call("hdel", queue .. ".msgs", id)
        redis.call("zadd", dead_letters, now[1] * 1000 + math.floor(now[2] / 1000), id)
        redis.call("hset", dead_letters .. ".msgs", id, ARGV[4])
        return id
    end
end
return false
