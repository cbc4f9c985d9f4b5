-- requeue_dead: push ids that could not be worked on again.
-- KEYS  1 q, 2 dead, 3 missing
-- ARGV  1 how many at most, the oldest first; or 0, and then the ids
-- Returns how many went to the end of the queue. A second run takes more where no ids are given.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[2])
local ids = {}
if ARGV[1] ~= '0' then ids = redis.call('RPOP', KEYS[2], ARGV[1]) or {} end
for i = 2, #ARGV do
  if redis.call('LREM', KEYS[2], 0, ARGV[i]) > 0 then ids[#ids + 1] = ARGV[i] end
end
if #ids == 0 then return 0 end
redis.call('ZREM', KEYS[3], unpack(ids)) -- their hashes may take their time again
redis.call('LPUSH', KEYS[1], unpack(ids))
return #ids
