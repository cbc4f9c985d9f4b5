-- strike_fires: the fires of a schedule that were won are started.
-- KEYS  1 schedule
-- ARGV  1 `firing`, as it was read
-- Returns 1, or 0 where something else stands there by now. A second run changes nothing.
if redis.call('HGET', KEYS[1], 'firing') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'firing')
return 1
