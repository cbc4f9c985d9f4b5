-- recall: bring parked ids back now, the first of them next: what they waited for is theirs.
-- KEYS  1 q, 2 claims, 3 due, 4 nodes, 5 paused
-- ARGV  ids, in their order
-- Returns for each: 2 it was parked, and is at the head of the queue; 1 it is claimed, or on its way already; 0 neither;
-- 3 it is parked, and stays so: the queue is paused, or no node serves it. Safe to repeat.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local served = redis.call('EXISTS', KEYS[5]) == 0 and redis.call('HLEN', KEYS[4]) > 0
local out = {}
for i = #ARGV, 1, -1 do
  local id = ARGV[i]
  if redis.call('HEXISTS', KEYS[2], id) == 1 then out[i] = 1
  elseif not redis.call('ZSCORE', KEYS[3], id) then out[i] = 0
  elseif not served then out[i] = 3
  else
    redis.call('ZREM', KEYS[3], id)
    redis.call('HSET', KEYS[2], id, '-back')
    redis.call('RPUSH', KEYS[1], id)
    out[i] = 2
  end
end
return out
