-- tell: let the replicas of a service that run know how many there are.
-- KEYS  1 services' counts, 2 services' changed
-- ARGV  1 service, 2 the revision that says so, 3 how many ('' : the service is no more)
-- Returns 1, or 0 where a later revision has told already: a node that was held up does not speak last. Safe to repeat.
local before = redis.call('HGET', KEYS[1], ARGV[1])
local told = string.match(before or '', ' (%d+)$')
if tonumber(told or '0') > tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[2])
end
if ARGV[3] ~= string.match(before or '', '^%d*') then redis.call('INCR', KEYS[2]) end
return 1
