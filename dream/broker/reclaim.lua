-- Put back what this worker fetched but no thread of it holds: replies that were lost on the way, and prefetched
-- messages of a consumer that is gone. They go first: they have waited.
-- KEYS: the namespace. ARGV: worker id, queue, then the ids that are held.
local queue = KEYS[1] .. ":" .. ARGV[2]
local acks = KEYS[1] .. ":__acks__." .. ARGV[1] .. "." .. ARGV[2]
local held = {}
for i = 3, #ARGV do
    held[ARGV[i]] = true
end
local reclaimed = 0
for _, id in ipairs(redis.call("smembers", acks)) do
    if not held[id] then
        redis.call("srem", acks, id)
        if redis.call("hexists", queue .. ".msgs", id) == 1 then
            redis.call("lpush", queue, id)
            reclaimed = reclaimed + 1
        end
    end
end
return reclaimed
