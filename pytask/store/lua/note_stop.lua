-- note_stop: a stop that must not get lost, where the beat of the node that owns the claim finds it.
-- KEYS  1 claims, 2 control
-- ARGV  1 id, 2 the fence of the run that is to end
-- Returns 1 where that claim stands, else 0: then the run has ended, and the next one must not be stopped. Safe to repeat.
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if not owner or string.match(owner, ' (%d+)$') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
