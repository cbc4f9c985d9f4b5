-- stop: ask for the end of a task, whether it runs or waits, so that the wish cannot get lost.
-- KEYS  task
-- Returns {'missing'}, {'ended', state} where there is nothing to stop, or {'ok', state, key of the queue it was
-- claimed from or '', queue field or '', fence or ''}. Safe to repeat.
local h = redis.pcall('HMGET', KEYS[1], 'state', 'at', 'queue', 'task', 'fence')
if h.err or (not h[1] and not h[4] and redis.call('EXISTS', KEYS[1]) == 0) then return {'missing'} end
local state = h[1] or 'WAIT'
local OPEN = {WAIT = 1, SCHEDULED = 1, RETRY = 1, RUNNING = 1, HELD = 1}
if not OPEN[state] then return {'ended', state} end
redis.call('HSET', KEYS[1], 'control', 'stop')
redis.call('PUBLISH', KEYS[1] .. '-control', 'stop')
return {'ok', state, h[2] or '', h[3] or '', h[5] or ''}
