-- beat: a node says that it lives, and learns how many claims it has and which of them were told to stop.
-- KEYS  1 nodes, 2 of:<node>, 3 control
-- ARGV  1 node, 2 sequence (grows with each beat, kept by the node)
-- Returns {-1} where the node is absent or being reaped, else {its claims, id, ...}. A second run does the same.
local status = redis.call('HGET', KEYS[1], ARGV[1])
if not status or string.sub(status, 1, 1) == '-' then return {-1} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local out = {redis.call('HLEN', KEYS[2])}
local told = redis.call('HKEYS', KEYS[3])
for _, id in ipairs(told) do
  if redis.call('HEXISTS', KEYS[2], id) == 1 then out[#out + 1] = id end
end
return out
