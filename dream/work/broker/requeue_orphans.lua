-- Requeue the messages that this worker fetched and no thread has in work: lost replies, and messages prefetched by a
-- consumer that is gone. They go first, because they have waited. Returns how many.
-- KEYS: the namespace. ARGV: worker id, queue, then the ids of the messages in work.
local queue = KEYS[1] .. ":" .. ARGV[2]
local acks = KEYS[1] .. ":__acks__." .. ARGV[1] .. "." .. ARGV[2]
local in_work = {}
for i = 3, #ARGV do
    in_work[ARGV[i]] = true
end
local count = 0
for _, id in ipairs(redis.call("smembers", acks)) do
    if not in_work[id] then
        redis.call("srem", acks, id)
        if redis.call("hexists", queue .. ".msgs", id) == 1 then
            redis.call("lpush", queue, id)
            redis.call("sadd", queue .. ".returned", id)
            count = count + 1
        end
    end
end
return count
