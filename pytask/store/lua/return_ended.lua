-- return_ended: give back what the Cleanup of a dead node had taken.
-- KEYS  1 end-task, 2 {end-task}:of:<node>, 3 {end-task}:takers
-- ARGV  1 node, 2 the sequence that was seen unchanged
-- Returns how many ids went back, -1 where it has moved since. Safe to repeat.
local sequence = redis.call('HGET', KEYS[3], ARGV[1])
if sequence and sequence ~= ARGV[2] then return -1 end
local moved = 0
while redis.call('LMOVE', KEYS[2], KEYS[1], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('HDEL', KEYS[3], ARGV[1])
return moved
