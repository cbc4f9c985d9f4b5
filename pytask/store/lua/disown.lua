-- disown: drop the claims of a node that is gone without a trace, once the sweep has put its ids back.
-- KEYS  1 nodes, 2 of:<node>
-- ARGV  1 node
-- Returns how many there were; 0 where the node is known, or is being reaped. Safe to repeat.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HEXISTS', KEYS[1], '-' .. ARGV[1]) == 1 then return 0 end
local count = redis.call('HLEN', KEYS[2])
redis.call('DEL', KEYS[2])
return count
