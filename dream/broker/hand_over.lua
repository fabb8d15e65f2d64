-- Put messages on their queues, each once, and forget where they were taken from, in one step.
-- KEYS: the namespace, the hash in which they are in flight (may be "").
-- ARGV: seconds for which a delivery is remembered, then for each: tag, delivery id, queue, message.
-- Returns for each 1 (put there), 0 (it was there before) or -1 (somebody else has done it).
local namespace, in_flight = KEYS[1] .. ":", KEYS[2]
local outcome = {}
for i = 2, #ARGV, 4 do
    local tag, id, queue, message = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if in_flight ~= "" and redis.call("hdel", in_flight, tag) == 0 then
        outcome[#outcome + 1] = -1
    elseif redis.call("set", namespace .. "bridge:seen:" .. id, 1, "nx", "ex", ARGV[1]) then
        redis.call("hset", namespace .. queue .. ".msgs", id, message)
        redis.call("rpush", namespace .. queue, id)
        outcome[#outcome + 1] = 1
    else
        outcome[#outcome + 1] = 0
    end
end
return outcome
