-- visit: take the services whose turn has come, for a while; nobody else looks at them meanwhile.
-- KEYS  1 services
-- ARGV  1 for how long (seconds), 2 how many at most
-- Returns {seconds until the next turn ('' where there is none), name, score, name, score, ...}: the score that each has
-- now, by which `revisit` knows that it is still ours.
-- A second run takes others.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local out = {''}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
  local score = string.format('%.6f', now + tonumber(ARGV[1]))
  redis.call('ZADD', KEYS[1], score, name)
  out[#out + 1] = name
  out[#out + 1] = score
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then out[1] = string.format('%.6f', math.max(tonumber(first[2]) - now, 0)) end
return out
