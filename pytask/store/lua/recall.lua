-- recall: bring parked ids back now, the first of them next: what they waited for is theirs.
-- KEYS  1 q, 2 claims, 3 due
-- ARGV  ids, in their order
-- Returns for each: 2 it was parked, and is at the head of the queue; 1 it is claimed, or on its way already;
-- 0 none of these. Safe to repeat.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local out = {}
for i = #ARGV, 1, -1 do
  local id = ARGV[i]
  if redis.call('HEXISTS', KEYS[2], id) == 1 then out[i] = 1
  elseif redis.call('ZREM', KEYS[3], id) == 0 then out[i] = 0
  else
    redis.call('HSET', KEYS[2], id, '-back')
    redis.call('RPUSH', KEYS[1], id)
    out[i] = 2
  end
end
return out
