-- The order of a queue's messages: by priority, and within one priority by turns among groups. Other scripts begin with
-- this text.
--
--   <queue>               list: messages as they arrive, from any sender; those that come back stand at its head
--   <queue>.returned      set: ids in that list that were fetched before
--   <queue>.lines         zset: each line that has messages, with the tag of its next message
--   <queue>.rested        zset: each line that has none, with its next tag, until the other lines have passed it
--   <queue>.line:<line>   list: `<cost>:<id>` of each message, oldest first
--
-- A line is `<priority>:<group>`. Its tag grows by the cost of each message that is taken, and the line with the lowest
-- tag is next (start-time fair queuing). A line that begins takes the lowest tag of its priority: it is the next one, and
-- saves nothing up. Each priority has a range of tags of its own; all tags are integers below 2^53.
local NORMAL, HIGHEST, MOST_COST = 5, 9, 1000
local RANGE, FIRST = 2 ^ 49, 2 ^ 48

local function range_of(line)
    return (HIGHEST - tonumber(string.sub(line, 1, 1))) * RANGE
end

-- Lua would write a large number with 14 digits.
local function written(tag)
    return string.format("%.0f", tag)
end

-- The line and the cost of a message. A message without an option `turn` has no group.
local function turn_of(message)
    local turn
    if string.find(message, '"turn"', 1, true) then
        local readable, value = pcall(cjson.decode, message)
        local options = readable and type(value) == "table" and value["options"]
        turn = type(options) == "table" and options["turn"]
    end
    if type(turn) ~= "table" then
        return NORMAL .. ":", 1
    end
    local group, cost, priority = turn["group"], turn["cost"], turn["priority"]
    group = type(group) == "string" and #group <= 255 and group or ""
    cost = type(cost) == "number" and cost >= 1 and math.floor(math.min(cost, MOST_COST)) or 1
    priority = type(priority) == "number" and priority >= 0 and math.floor(math.min(priority, HIGHEST)) or NORMAL
    return string.format("%d:", priority) .. group, cost
end

-- The lowest tag of the lines with this line's priority; nil if there is no such line.
local function lowest_tag(queue, range)
    local first = redis.call("zrangebyscore", queue .. ".lines", written(range), "(" .. written(range + RANGE),
        "withscores", "limit", 0, 1)
    return first[2] and tonumber(first[2])
end

-- Put a message into its line. One that was fetched before goes first there, and its line is next.
local function join(queue, id, message, is_returned)
    local line, cost = turn_of(message)
    local range = range_of(line)
    local lowest = lowest_tag(queue, range)
    local tag = tonumber(redis.call("zscore", queue .. ".lines", line))
    redis.call(is_returned and "lpush" or "rpush", queue .. ".line:" .. line, string.format("%d:", cost) .. id)
    if not tag then
        local rested = tonumber(redis.call("zscore", queue .. ".rested", line))
        redis.call("zrem", queue .. ".rested", line)
        tag = math.max(lowest or range + FIRST, not is_returned and rested or 0)
        redis.call("zadd", queue .. ".lines", written(tag), line)
    elseif is_returned and tag > lowest then
        redis.call("zadd", queue .. ".lines", written(lowest - 1), line)
    end
end

-- Put the messages that have arrived into their lines. Other clients wait while the script runs.
local function line_up(queue)
    local left, left_bytes = 5000, 4194304
    while left > 0 and left_bytes > 0 do
        local id = redis.call("lpop", queue)
        if not id then
            redis.call("del", queue .. ".returned")
            break
        end
        local message = redis.call("hget", queue .. ".msgs", id)
        if message then
            local is_returned = redis.call("srem", queue .. ".returned", id) == 1 or string.sub(message, 1, 1) == " "
            join(queue, id, message, is_returned)
            left, left_bytes = left - 1, left_bytes - #message
        end
    end
end

-- The next line. With one free place, no line of a group in `held`; with none, only lines without a group.
local function next_line(queue, places, held, held_count)
    if places > 1 then
        return redis.call("zrange", queue .. ".lines", 0, 0)[1]
    elseif places == 1 then
        for _, line in ipairs(redis.call("zrange", queue .. ".lines", 0, (HIGHEST + 1) * held_count)) do
            if not held[string.sub(line, 3)] then
                return line
            end
        end
    else
        for priority = HIGHEST, 0, -1 do
            if redis.call("zscore", queue .. ".lines", priority .. ":") then
                return priority .. ":"
            end
        end
    end
end

-- Take the first message of a line; returns its id, which may have no message any more.
local function take(queue, line)
    local key, range = queue .. ".line:" .. line, range_of(line)
    local cost, id = string.match(redis.call("lpop", key), "^(%d+):(.*)$")
    local tag = tonumber(redis.call("zscore", queue .. ".lines", line)) + tonumber(cost)
    if redis.call("exists", key) == 1 then
        redis.call("zadd", queue .. ".lines", written(tag), line)
    else
        redis.call("zrem", queue .. ".lines", line)
        redis.call("zadd", queue .. ".rested", written(tag), line)
    end
    local passed = lowest_tag(queue, range) or range + RANGE
    redis.call("zremrangebyscore", queue .. ".rested", written(range), written(passed))
    return id
end

-- Delete all lines; returns the ids of their messages.
local function dissolve(queue)
    local ids = {}
    for _, line in ipairs(redis.call("zrange", queue .. ".lines", 0, -1)) do
        for _, entry in ipairs(redis.call("lrange", queue .. ".line:" .. line, 0, -1)) do
            ids[#ids + 1] = string.match(entry, "^%d+:(.*)$")
        end
        redis.call("del", queue .. ".line:" .. line)
    end
    redis.call("del", queue .. ".lines", queue .. ".rested", queue .. ".returned")
    return ids
end
