-- Put messages on their queues, each delivery once, and forget them where they came from, in one step.
-- KEYS: the namespace, the hash of messages in flight (may be "").
-- ARGV: seconds for which a delivery is remembered, then for each message: tag, delivery id, queue, message.
-- Returns for each 1 (put on its queue), 0 (it was put there before) or -1 (another process has handed it over).
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
