-- restart: let tasks run again. The caller pushes the ids afterwards.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 name: only tasks with it ('': whatever they are called), then the states in which they may be restarted; none: in
--       every state (one that runs then runs again after its end)
-- Returns for each: {'missing'}, {'refused' | 'ok', state before, key of the queue it ran from or '', queue field or ''}.
-- A stop that was not obeyed yet is taken back: `control` then holds `restart` and the time, since its message may still be
-- under way, or was lost; so it does after one that was obeyed a moment ago, by another node maybe. Safe to repeat.
local name, allowed = ARGV[1], {}
for i = 2, #ARGV do allowed[ARGV[i]] = true end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local MOMENT = 2 -- seconds

local function restart(key)
  local h = redis.pcall('HMGET', key, 'state', 'at', 'queue', 'task', 'control', 'last_update')
  if h.err or (not h[1] and not h[4] and redis.call('EXISTS', key) == 0) then return {'missing'} end
  local state = h[1] or 'WAIT'
  if (#ARGV > 1 and not allowed[state]) or (name ~= '' and h[4] ~= name) then
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
