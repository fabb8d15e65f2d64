-- Return those of the messages that none of the queues has: not waiting, not in work.
-- KEYS: the namespace. ARGV: number of queues, the queues, then the message ids.
local queues = tonumber(ARGV[1])
local missing = {}
for i = queues + 2, #ARGV do
    local is_there = false
    for q = 2, queues + 1 do
        is_there = is_there or redis.call("hexists", KEYS[1] .. ":" .. ARGV[q] .. ".msgs", ARGV[i]) == 1
    end
    if not is_there then
        table.insert(missing, ARGV[i])
    end
end
return missing
