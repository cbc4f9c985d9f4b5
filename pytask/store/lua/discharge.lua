-- discharge: remove the records of replicas that are wanted no more and have ended, with their events.
-- KEYS  task, events, ...: each with its stream   (all in one slot on a cluster)
-- ARGV  1 service, then for each task: '1' where a node owns it still, else ''
-- Returns for each: 1 where there is no record of a replica of this service any more, else 0. Safe to repeat.
local OPEN = {WAIT = 1, SCHEDULED = 1, RETRY = 1, RUNNING = 1}
local out = {}
for i = 1, #KEYS, 2 do
  local key, n = KEYS[i], (i + 1) / 2
  local h = redis.pcall('HMGET', key, 'service', 'state')
  if h.err or h[1] ~= ARGV[1] then out[n] = 1
  elseif OPEN[h[2] or 'WAIT'] or ARGV[n + 1] == '1' then out[n] = 0
  else
    local stream = KEYS[i + 1]
    redis.call('DEL', key)
    redis.call('DEL', stream)
    out[n] = 1
  end
end
return out
