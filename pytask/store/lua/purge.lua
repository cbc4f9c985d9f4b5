-- purge: remove the records of tasks that wait, and of no others.
-- KEYS  task, events, ...   (its stream behind each task; all in one slot on a cluster)
-- ARGV  for each: '1' where the id waits for a time as well, and is to go on doing so
-- Returns for each: 'purged' where it is gone (or there was none), 'open' where it has begun and not ended, 'left' for all
-- else: ended, stopped, parked, no hash. A second run answers 'purged' again.
local KNOWN = {SCHEDULED = 1, RETRY = 1, RUNNING = 1, HELD = 1, STOPPED = 1, SUCCESS = 1, ERROR = 1, EXCEPTION = 1,
  TIMEOUT = 1, EXPIRED = 1, SKIPPED = 1, DISCARDED = 1, LOST = 1}

local function judge(h, parked)
  if h.err or h[4] then return 'left' end
  local state = h[1] and KNOWN[h[1]] and h[1] or 'WAIT'
  if state == 'SCHEDULED' or state == 'RETRY' then return parked and 'left' or 'purged' end
  if state == 'RUNNING' then return 'open' end
  if state ~= 'WAIT' then return 'left' end
  return h[2] and h[2] ~= h[3] and 'open' or 'purged' -- restarted while it runs
end

local out = {}
for i = 1, #KEYS, 2 do
  local key, n = KEYS[i], (i + 1) / 2
  local h = redis.pcall('HMGET', key, 'state', 'fence', 'closed', 'local', 'kept')
  local verdict = judge(h, ARGV[n] == '1')
  if verdict == 'purged' and redis.call('DEL', key) == 1 then
    if h[5] then redis.call('DEL', KEYS[i + 1]) end
    redis.call('PUBLISH', key, '{"event":"purged","data":null}')
  end
  out[n] = verdict
end
return out
