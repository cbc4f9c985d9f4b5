-- renew: a higher fence for a claim, where the record has seen one above it (begin answered `stale`).
-- KEYS  1 claims, 2 of:<node>, 3 fence
-- ARGV  1 node, 2 id, 3 fence, 4 floor (the fence in the record)
-- Returns {'gone'} where the claim is not ours, else {'ok', fence, lost, how, early}.
-- A second run after a lost reply finds the new fence above the floor and returns it.
local mine = redis.call('HGET', KEYS[2], ARGV[2])
if not mine then return {'gone'} end
local fence, lost, how, early = string.match(mine, '^(%d+) (%d) (%a+) (%d)$')
if fence ~= ARGV[3] then
  if tonumber(fence) > tonumber(ARGV[4]) then return {'ok', fence, lost, how, early} end
  return {'gone'}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1e6 + tonumber(time[2])
local new = math.max(tonumber(redis.call('GET', KEYS[3]) or '0'), tonumber(ARGV[4]), now) + 1
local text = string.format('%.0f', new)
redis.call('SET', KEYS[3], text)
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1] .. ' ' .. text)
redis.call('HSET', KEYS[2], ARGV[2], text .. ' ' .. lost .. ' ' .. how .. ' ' .. early)
return {'ok', text, lost, how, early}
