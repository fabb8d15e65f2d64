-- Which of these messages does no queue of those named hold?
-- KEYS: the namespace. ARGV: number of queues, the queues, then the message ids.
local queues = tonumber(ARGV[1])
local missing = {}
for i = queues + 2, #ARGV do
    local held = false
    for q = 2, queues + 1 do
        held = held or redis.call("hexists", KEYS[1] .. ":" .. ARGV[q] .. ".msgs", ARGV[i]) == 1
    end
    if not held then
        table.insert(missing, ARGV[i])
    end
end
return missing
