-- restart: let a task run again. The caller pushes the id afterwards.
-- KEYS  task
-- ARGV  the states in which it may be restarted; none: in every state (one that runs then runs again after its end)
-- Returns {'missing'}, {'refused' | 'ok', state before, key of the queue it ran from or '', queue field or ''}.
-- Safe to repeat.
local h = redis.pcall('HMGET', KEYS[1], 'state', 'at', 'queue', 'task')
if h.err or (not h[1] and not h[4] and redis.call('EXISTS', KEYS[1]) == 0) then return {'missing'} end
local state = h[1] or 'WAIT'
local allowed = #ARGV == 0
for _, name in ipairs(ARGV) do allowed = allowed or name == state end
if not allowed then return {'refused', state, h[2] or '', h[3] or ''} end
redis.call('HSET', KEYS[1], 'state', 'WAIT')
redis.call('HDEL', KEYS[1], 'control', 'unknown', 'ended')
if state ~= 'RUNNING' then redis.call('HDEL', KEYS[1], 'attempt', 'deliveries', 'suspect') end
redis.call('PERSIST', KEYS[1])
return {'ok', state, h[2] or '', h[3] or ''}
