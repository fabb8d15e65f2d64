-- Move a fetched message that cannot be decoded to the dead letters. Its id is inside what cannot be decoded, so it
-- is found by its bytes among the few that this worker has fetched.
-- KEYS: the namespace. ARGV: worker id, queue, queue of the dead letters, the message's bytes.
local queue = KEYS[1] .. ":" .. ARGV[2]
local acks = KEYS[1] .. ":__acks__." .. ARGV[1] .. "." .. ARGV[2]
local dead = KEYS[1] .. ":" .. ARGV[3]
local now = redis.call("time")
for _, id in ipairs(redis.call("smembers", acks)) do
    if redis.call("hget", queue .. ".msgs", id) == ARGV[4] then
        redis.call("srem", acks, id)
        redis.call("hdel", queue .. ".msgs", id)
        redis.call("zadd", dead, now[1] * 1000 + math.floor(now[2] / 1000), id)
        redis.call("hset", dead .. ".msgs", id, ARGV[4])
        return id
    end
end
return false
