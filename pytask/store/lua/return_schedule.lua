-- return_schedule: say when a schedule is to be looked at again, unless somebody has said so meanwhile.
-- KEYS  1 schedules
-- ARGV  1 name, 2 the score with which it was taken, 3 the new one; '' removes the name
-- Returns 1, or 0 where its score is another one by now, or it is gone. A second run changes nothing.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
