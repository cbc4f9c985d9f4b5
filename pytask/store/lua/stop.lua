-- stop: ask for the end of tasks, whether they run or wait, so that the wish cannot get lost.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 name: only tasks with it ('': whatever they are called), then the states in which they are to be stopped (none: in
--       every state that is not an end)
-- Returns for each: {'missing'}, {'ended', state} where there is nothing to stop, {'other'} where name or state is another,
-- or {'ok', state, key of the queue it was claimed from or '', queue field or '', fence or '', '1' where it had not been
-- asked before, else ''}. Safe to repeat.
local OPEN, name, wanted = {WAIT = 1, SCHEDULED = 1, RETRY = 1, RUNNING = 1, HELD = 1}, ARGV[1], nil
for i = 2, #ARGV do
  wanted = wanted or {}
  wanted[ARGV[i]] = true
end

local function stop(key)
  local h = redis.pcall('HMGET', key, 'state', 'at', 'queue', 'task', 'fence', 'control')
  if h.err or (not h[1] and not h[4] and redis.call('EXISTS', key) == 0) then return {'missing'} end
  local state = h[1] or 'WAIT'
  if not OPEN[state] then return {'ended', state} end
  if (wanted and not wanted[state]) or (name ~= '' and h[4] ~= name) then return {'other'} end
  redis.call('HSET', key, 'control', 'stop')
  redis.call('PUBLISH', key .. '-control', 'stop')
  return {'ok', state, h[2] or '', h[3] or '', h[5] or '', h[6] == 'stop' and '' or '1'}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = stop(key) end
return out
