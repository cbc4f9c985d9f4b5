-- nudge: bring a parked id back now, so that a stop of it is obeyed now.
-- KEYS  1 q, 2 claims, 3 due, 4 again
-- ARGV  1 id
-- Returns 1 where it was put at the head of the queue; 0 where it is claimed (it comes back when it is parked) or not
-- parked. Safe to repeat.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local claim = redis.call('HGET', KEYS[2], ARGV[1])
if claim then
  -- its record says that it waits: its node is about to park it, or to leave it parked; with a mark it is in the queue
  if string.sub(claim, 1, 1) ~= '-' then redis.call('SADD', KEYS[4], ARGV[1]) end
  return 0
end
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], '-back')
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
