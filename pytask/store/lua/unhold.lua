-- unhold: let held tasks wait in their queues: their turn in the workflow has come, or their fire was won. The caller pushes them.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  none
-- Returns for each: {state, queue field or ''}; {'missing'}. HELD becomes WAIT; any other state is left as it is, so that a
-- second run answers WAIT again, or what became of the task since.
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])

local function unhold(key)
  local h = redis.pcall('HMGET', key, 'state', 'queue', 'fence', 'task')
  if h.err or (not h[1] and not h[4]) then return {'missing'} end
  local state = h[1] or 'WAIT'
  if state == 'HELD' and not h[3] then
    state = 'WAIT'
    redis.call('HSET', key, 'state', state, 'last_update', now, 'created', now) -- `delay` and `expires_in` count from here
    redis.call('PERSIST', key) -- a draft would go by itself
    redis.call('PUBLISH', key, '{"event":"wait","data":null}')
  end
  return {state, h[2] or ''}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = unhold(key) end
return out
