-- revisit: keep a service that was taken for longer, or say when its turn comes next.
-- KEYS  1 services
-- ARGV  1 name, 2 the score that it has where it is still ours, 3 seconds from now ('': it is forgotten)
-- Returns the score that it has now ('' where it is forgotten), or 0 where it is not ours any more: somebody wants it to be
-- looked at, or another node has taken it. A second run answers 0.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return ''
end
local time = redis.call('TIME')
score = string.format('%.6f', tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], score, ARGV[1])
return score
