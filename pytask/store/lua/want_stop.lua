-- want_stop: note a stop in the record of what steers others, for its next run; whoever notes it pushes the id.
-- KEYS  1 task
-- ARGV  1 the fence of the run that was told
-- Returns 1, or 0 where that is not its last run, it has ended, or it was restarted meanwhile, or so shortly before that the
-- message of the stop came only now: that calls the stop off. Safe to repeat.
local UNDER_WAY = 3 -- seconds
local h = redis.pcall('HMGET', KEYS[1], 'state', 'fence', 'control')
if h.err or h[2] ~= ARGV[1] or (h[1] ~= 'RUNNING' and h[1] ~= 'HELD') then return 0 end
local since = tonumber(string.match(h[3] or '', '^restart%a* ([%d.]+)$') or '')
if since and math.abs(tonumber(redis.call('TIME')[1]) - since) < UNDER_WAY then return 0 end
redis.call('HSET', KEYS[1], 'control', 'stop')
return 1
