-- hold: take a lost claim again for a run that goes on (a failover took the claim back).
-- KEYS  1 claims, 2 of:<node>, 3 nodes
-- ARGV  1 node, 2 id, 3 fence, 4 lost
-- Returns 'gone': the node was declared dead; 'ok': the claim is ours; 'taken': another's, end the run. Safe to repeat.
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 'gone' end
local owner = redis.call('HGET', KEYS[1], ARGV[2])
if owner == ARGV[1] .. ' ' .. ARGV[3] then return 'ok' end
if owner then return 'taken' end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1] .. ' ' .. ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. ARGV[4] .. ' push 0')
return 'ok'
