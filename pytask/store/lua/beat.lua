-- beat: a node says that it lives, and learns how many claims it has and which of them were told to stop.
-- KEYS  1 nodes, 2 of:<node>, 3 control
-- ARGV  1 node, 2 sequence (grows with each beat, kept by the node)
-- Returns {-1} where the node is absent or being reaped, else {its claims, id, ...}. A second run does the same.
local status = redis.call('HGET', KEYS[1], ARGV[1])
if not status or string.sub(status, 1, 1) == '-' then return {-1} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local out = {redis.call('HLEN', KEYS[2])}
local told = redis.call('HGETALL', KEYS[3])
for i = 1, #told, 2 do
  local mine = redis.call('HGET', KEYS[2], told[i])
  if mine and string.match(mine, '^%d+') == told[i + 1] then out[#out + 1] = told[i] end
end
return out
