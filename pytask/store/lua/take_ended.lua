-- take_ended: move ended ids to the list of one node's Cleanup.
-- KEYS  1 end-task, 2 {end-task}:of:<node>
-- ARGV  1 how many at most
-- Returns all ids on that list, oldest last. A second run returns the same ids again, and more where there is room.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[2])
local ids = room > 0 and redis.call('RPOP', KEYS[1], room)
if ids and #ids > 0 then redis.call('LPUSH', KEYS[2], unpack(ids)) end
return redis.call('LRANGE', KEYS[2], 0, -1)
