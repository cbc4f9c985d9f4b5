-- lapse: let all that is known of a workflow expire.
-- KEYS  1 workflow, 2 spec, 3 tasks, 4 gates, 5 open, 6 ready
-- ARGV  1 the fence of the run that has ended, 2 after how long (ms)
-- Returns 1, or 0 where it has begun anew since: then nothing is changed. Safe to repeat.
local h = redis.call('HMGET', KEYS[1], 'laid', 'round')
if math.max(tonumber(h[1] or '0') or 0, tonumber(h[2] or '0') or 0) > (tonumber(ARGV[1]) or 0) then return 0 end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
return 1
