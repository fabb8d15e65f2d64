-- A worker's one question: forget what it has done, and hand it what waits.
-- KEYS: the namespace. ARGV: worker id, queue, how many messages at most, then the ids of those that are done.
-- Returns the messages.
--
-- What is delayed comes by a list, as stock has it, and waits by its time in <queue>.due. Of that a worker has the next
-- ones in its memory; what is due it is given though that is full, or thousands of late ones would keep it waiting.
local namespace = KEYS[1] .. ":"
local worker, queue, most = ARGV[1], namespace .. ARGV[2], tonumber(ARGV[3])
local acks = namespace .. "__acks__." .. worker .. "." .. ARGV[2]
local due = queue .. ".due"
local now = redis.call("time")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local messages = {}

local function hand(id)
    local message = redis.call("hget", queue .. ".msgs", id)
    if message then
        redis.call("sadd", acks, id)
        messages[#messages + 1] = message
    end
end

-- A message whose time cannot be read is due: a worker says what is wrong with it.
local function time_of(message)
    local readable, value = pcall(cjson.decode, message)
    local options = readable and type(value) == "table" and value["options"]
    local eta = type(options) == "table" and tonumber(options["eta"])
    return eta and eta > 0 and eta < 1e15 and eta or 0
end

local function sort_in()
    local left, left_bytes = 5000, 4194304 -- others ask Redis, too
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

-- First one that takes no memory: after it Redis lets a script write though its memory is full. A queue that has filled
-- it could not be worked off otherwise.
redis.call("srem", acks, "")
redis.call("zadd", namespace .. "__heartbeats__", now_ms, worker)
for i = 4, #ARGV do
    if redis.call("srem", acks, ARGV[i]) == 1 then
        redis.call("hdel", queue .. ".msgs", ARGV[i])
    end
end
if string.sub(queue, -3) == ".DQ" then
    sort_in()
    most = math.max(most, math.min(100, redis.call("zcount", due, "-inf", now_ms)))
    for _, id in ipairs(most > 0 and redis.call("zrange", due, 0, most - 1) or {}) do
        redis.call("zrem", due, id)
        hand(id)
    end
else
    while #messages < most do
        local id = redis.call("lpop", queue)
        if not id then
            break
        end
        hand(id)
    end
end
return messages
