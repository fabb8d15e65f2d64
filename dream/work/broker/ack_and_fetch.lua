-- A worker's one question: acknowledge messages and fetch others.
-- KEYS: the namespace. ARGV: worker id, queue, how many messages to fetch, free places for messages of groups, the number of
-- groups that have a place, these groups, then the ids of the messages to acknowledge.
-- Returns 1 if messages wait for a place, else 0, and then the fetched messages.
--
-- The last free place is for a group that has none: the long tasks of one group never take all threads of a worker.
--
-- A delayed message arrives in a list, as in stock Dramatiq, and is then sorted by its time into <queue>.due. A worker
-- prefetches the next ones. It also gets messages that are due when it asks for fewer: otherwise thousands of late
-- messages would hold them up.
local namespace = KEYS[1] .. ":"
local worker, queue, most = ARGV[1], namespace .. ARGV[2], tonumber(ARGV[3])
local places, held_count = tonumber(ARGV[4]), tonumber(ARGV[5])
local acks = namespace .. "__acks__." .. worker .. "." .. ARGV[2]
local due = queue .. ".due"
local now = redis.call("time")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local messages = {}

local function fetch(id)
    local message = redis.call("hget", queue .. ".msgs", id)
    if message then
        redis.call("sadd", acks, id)
        messages[#messages + 1] = message
    end
end

-- A message without a readable time is due: a worker reports what is wrong with it.
local function time_of(message)
    local readable, value = pcall(cjson.decode, message)
    local options = readable and type(value) == "table" and value["options"]
    local eta = type(options) == "table" and tonumber(options["eta"])
    return eta and eta > 0 and eta < 1e15 and eta or 0
end

local function sort_in()
    local left, left_bytes = 5000, 4194304 -- other clients wait while the script runs
    while left > 0 and left_bytes > 0 do
        local id = redis.call("lpop", queue)
        if not id then
            break
        end
        local message = redis.call("hget", queue .. ".msgs", id)
        if message then
            redis.call("zadd", due, time_of(message), id)
            left, left_bytes = left - 1, left_bytes - #message
        end
    end
end

-- Messages without a group that can all be fetched need no order.
local function fetch_arrived()
    while redis.call("exists", queue .. ".lines") == 0 and redis.call("llen", queue) <= most - #messages do
        local id = redis.call("lpop", queue)
        if not id then
            return
        end
        local message = redis.call("hget", queue .. ".msgs", id)
        if message and string.find(message, '"turn"', 1, true) then
            redis.call("lpush", queue, id)
            return
        end
        fetch(id)
    end
end

local function fetch_by_turns()
    local held = {}
    for i = 6, 5 + held_count do
        held[ARGV[i]] = true
    end
    while #messages < most do
        local line = next_line(queue, places, held, held_count)
        if not line then
            return
        end
        local count, group = #messages, string.sub(line, 3)
        fetch(take(queue, line))
        if group ~= "" and #messages > count then
            places = places - 1
            held_count = held[group] and held_count or held_count + 1
            held[group] = true
        end
    end
end

-- First a write that takes no memory: after it Redis lets a script write though its memory is full. Otherwise nobody
-- could work off a queue that has filled it.
redis.call("srem", acks, "")
redis.call("zadd", namespace .. "__heartbeats__", now_ms, worker)
for i = 6 + held_count, #ARGV do
    if redis.call("srem", acks, ARGV[i]) == 1 then
        redis.call("hdel", queue .. ".msgs", ARGV[i])
    end
end
if string.sub(queue, -3) == ".DQ" then
    sort_in()
    most = math.max(most, math.min(100, redis.call("zcount", due, "-inf", now_ms)))
    for _, id in ipairs(most > 0 and redis.call("zrange", due, 0, most - 1) or {}) do
        redis.call("zrem", due, id)
        fetch(id)
    end
else
    fetch_arrived()
    line_up(queue)
    fetch_by_turns()
end
local waits = #messages < most and redis.call("exists", queue .. ".lines") == 1
table.insert(messages, 1, waits and 1 or 0)
return messages
