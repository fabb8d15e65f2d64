-- Keep the record of a task and publish it to those that wait; a SUCCESS is never overwritten.
-- KEYS: celery-task-meta-<id>. ARGV: the record as JSON, seconds for which it is kept (0: for ever).
-- Returns 1, or 0 if a SUCCESS is there.
local held = redis.call('GET', KEYS[1])
if held then
  local readable, meta = pcall(cjson.decode, held)
  if readable and type(meta) == 'table' and meta['status'] == 'SUCCESS' then
    return 0
  end
end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
