-- restart: let tasks run again. The caller pushes the ids afterwards.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 name: only tasks with it ('': whatever they are called), 2 the fence that they must still have ('' for none; '-':
--       whatever it is), then the states in which they may be restarted; none: in every state (one that runs then runs
--       again after its end)
-- Returns for each: {'missing'}, {'begun' | 'refused' | 'ok', state before, key of the queue it ran from or '', queue field
-- or ''}; 'begun': it has another fence, nothing was changed.
-- A stop that was not obeyed yet is taken back: `control` then holds `restart` and the time, since its message may still be
-- under way, or was lost; so it does after one that was obeyed a moment ago, by another node maybe.
-- Safe to repeat with a fence that was read before the first call: a run that this one brought about has another.
local name, fence, allowed = ARGV[1], ARGV[2], {}
for i = 3, #ARGV do allowed[ARGV[i]] = true end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local MOMENT = 2 -- seconds

local function restart(key)
  local h = redis.pcall('HMGET', key, 'state', 'at', 'queue', 'task', 'control', 'last_update', 'fence')
  if h.err or (not h[1] and not h[4] and redis.call('EXISTS', key) == 0) then return {'missing'} end
  local state = h[1] or 'WAIT'
  if fence ~= '-' and (h[7] or '') ~= fence then return {'begun', state, h[2] or '', h[3] or ''} end
  if (#ARGV > 2 and not allowed[state]) or (name ~= '' and h[4] ~= name) then
    return {'refused', state, h[2] or '', h[3] or ''}
  end
  redis.call('HSET', key, 'state', 'WAIT')
  local stopped = state == 'STOPPED' and tonumber(h[6] or '')
  if h[5] == 'stop' or (stopped and math.abs(tonumber(now) - stopped) < MOMENT) then
    redis.call('HSET', key, 'control', 'restart ' .. now)
  elseif h[5] and not string.find(h[5], '^restart%a* ') then redis.call('HDEL', key, 'control') end
  redis.call('HDEL', key, 'unknown', 'ended')
  if state ~= 'RUNNING' then redis.call('HDEL', key, 'attempt', 'deliveries', 'suspect') end
  redis.call('PERSIST', key)
  return {'ok', state, h[2] or '', h[3] or ''}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = restart(key) end
return out
