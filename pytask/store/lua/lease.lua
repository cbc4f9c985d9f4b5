-- lease: take or keep the right to sweep, for a time; or give it up.
-- KEYS  1 sweep
-- ARGV  1 who, 2 for how long (milliseconds; 0: give it up)
-- Returns 1 where it is ours now, else 0. Two who think that they have it do no harm. Safe to repeat.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
if holder then redis.call('DEL', KEYS[1]) end
return 0
