-- take_ended: move ended ids to the list of one node's Cleanup.
-- KEYS  1 end-task, 2 {end-task}:of:<node>
-- ARGV  1 how many at most
-- Returns all ids on that list, oldest last. A second run returns the same ids again, and more where there is room.
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[2])
for _ = 1, room do
  if not redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT') then break end
end
return redis.call('LRANGE', KEYS[2], 0, -1)
