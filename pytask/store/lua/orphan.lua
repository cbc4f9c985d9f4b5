-- orphan: empty the inbox of a node that is gone (a blocking move of a frozen node may still have filled it).
-- KEYS  1 q, 2 nodes, 3 inbox:<node>
-- ARGV  1 node
-- Returns how many ids went back to the head of the queue; 0 where the node lives. Safe to repeat.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
local moved = 0
while redis.call('LMOVE', KEYS[3], KEYS[1], 'RIGHT', 'RIGHT') do moved = moved + 1 end
return moved
