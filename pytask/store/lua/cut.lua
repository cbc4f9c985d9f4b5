-- cut: let nobody take another step of a workflow whose task has ended without it.
-- KEYS  1 workflow
-- ARGV  1 the fence of the run that has ended
-- Returns 1, or 0 where there is no such workflow, a run of its own has ended it, or it has begun anew since. A second run
-- answers 1 again, and changes nothing.
local h = redis.call('HMGET', KEYS[1], 'state', 'laid', 'round')
local OVER = {SUCCESS = 1, ERROR = 1, STOPPED = 1}
local since = math.max(tonumber(h[2] or '0') or 0, tonumber(h[3] or '0') or 0)
if not h[1] or OVER[h[1]] or since > (tonumber(ARGV[1]) or 0) then return 0 end
redis.call('HDEL', KEYS[1], 'laid')
redis.call('HSET', KEYS[1], 'cut', '1')
return 1
