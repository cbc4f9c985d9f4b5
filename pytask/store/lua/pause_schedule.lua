-- pause_schedule: let a schedule fire no more, or again.
-- KEYS  1 schedule
-- ARGV  1 when it was paused (epoch seconds); '' lets it fire again
-- Returns 1, 0 where it is so already, -1 where there is no such schedule. A second run answers 0.
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if ARGV[1] == '' then return redis.call('HDEL', KEYS[1], 'paused') end
return redis.call('HSETNX', KEYS[1], 'paused', ARGV[1])
