-- The commands of Dramatiq's Redis broker (release 2.2), with its arguments, keys and replies. Dream's own are:
--   the clock           the server's, so that a worker whose clock is wrong is not taken for dead
--   a dead worker's     messages go before all that waits, marked as suspects by a space before their JSON
--   `keys`              walks through all keys of the server: once a minute for each dead worker
-- KEYS: the namespace. ARGV: command, the caller's time (not used), queue, worker id, milliseconds after which a silent
-- worker is dead, milliseconds for which a dead letter is kept, "1" for maintenance, the number of values that Lua can
-- unpack, then the arguments of the command.
local namespace = KEYS[1] .. ":"
local command, queue_name, worker = ARGV[1], ARGV[3], ARGV[4]
local heartbeat_timeout, dead_letter_ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local does_maintenance, most_unpacked = ARGV[7] == "1", tonumber(ARGV[8])
local argument = 9 -- the first one of the command

local heartbeats = namespace .. "__heartbeats__"
local all_acks = namespace .. "__acks__." .. worker .. "."
local acks = all_acks .. queue_name
local queue = namespace .. queue_name
local messages = queue .. ".msgs"
local own_queue_name = string.gsub(queue_name, "%.DQ$", "") -- a delay queue has the dead letters of its queue
local dead_letters = namespace .. own_queue_name .. ".XQ"
local now = redis.call("time")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

local function requeue_first_as_suspect(id)
    local message = redis.call("hget", messages, id)
    if message then
        redis.call("lpush", queue, id)
        if string.sub(message, 1, 1) ~= " " then
            redis.call("hset", messages, id, " " .. message)
        end
    end
end

local function has_acks(dead)
    if redis.call("set", namespace .. "__looked__." .. dead, 1, "nx", "ex", 60) then
        return #redis.call("keys", namespace .. "__acks__." .. dead .. "*") > 0
    end
    return true -- as far as is known
end

local function requeue_of_dead_workers()
    for _, dead in ipairs(redis.call("zrangebyscore", heartbeats, 0, now_ms - heartbeat_timeout)) do
        local acks_of_dead = namespace .. "__acks__." .. dead .. "." .. queue_name
        for _, id in ipairs(redis.call("smembers", acks_of_dead)) do
            requeue_first_as_suspect(id)
        end
        redis.call("del", acks_of_dead)
        if not has_acks(dead) then
            redis.call("zrem", heartbeats, dead)
        end
    end
end

local function remove_old_dead_letters()
    local ids = redis.call("zrangebyscore", dead_letters, 0, now_ms - dead_letter_ttl)
    for first = 1, #ids, most_unpacked do
        local last = math.min(first + most_unpacked - 1, #ids)
        redis.call("zrem", dead_letters, unpack(ids, first, last))
        redis.call("hdel", dead_letters .. ".msgs", unpack(ids, first, last))
    end
end

local commands = {}

function commands.enqueue()
    redis.call("hset", messages, ARGV[argument], ARGV[argument + 1])
    redis.call("rpush", queue, ARGV[argument])
end

function commands.fetch()
    local ids = {}
    for _ = 1, math.min(tonumber(ARGV[argument]), most_unpacked) do
        local id = redis.call("lpop", queue)
        if not id then
            break
        end
        ids[#ids + 1] = id
        redis.call("sadd", acks, id)
    end
    return #ids > 0 and redis.call("hmget", messages, unpack(ids)) or {}
end

function commands.requeue()
    for i = argument, #ARGV do
        if redis.call("srem", acks, ARGV[i]) > 0 and redis.call("hexists", messages, ARGV[i]) > 0 then
            redis.call("rpush", queue, ARGV[i])
        end
    end
end

function commands.ack()
    if redis.call("srem", acks, ARGV[argument]) > 0 then
        redis.call("hdel", messages, ARGV[argument])
    end
end

-- To the dead letters.
function commands.nack()
    local id = ARGV[argument]
    local message = redis.call("srem", acks, id) > 0 and redis.call("hget", messages, id)
    if message then
        redis.call("zadd", dead_letters, now_ms, id)
        redis.call("hset", dead_letters .. ".msgs", id, message)
        redis.call("hdel", messages, id)
    end
end

function commands.purge()
    dissolve(queue)
    redis.call("del", queue, queue .. ".due", acks, messages, dead_letters, dead_letters .. ".msgs")
end

-- Messages of the queue and its delay queue; those that this worker has in work count twice, as in stock.
function commands.qsize()
    local size = 0
    for _, name in ipairs({ own_queue_name, own_queue_name .. ".DQ" }) do
        size = size + redis.call("hlen", namespace .. name .. ".msgs") + redis.call("scard", all_acks .. name)
    end
    return size
end

-- Any write that takes no memory: after it Redis lets a script write though its memory is full, and only a new message
-- takes more.
if command ~= "enqueue" then
    redis.call("srem", namespace .. "__none__", "")
end
redis.call("zadd", heartbeats, now_ms, worker)
if does_maintenance then
    requeue_of_dead_workers()
    remove_old_dead_letters()
end
return commands[command]()
