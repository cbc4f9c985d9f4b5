-- note_ended: enter tasks that ended without ever being claimed in their queue's list of ended ones.
-- KEYS  1 ended, 2 counts
-- ARGV  1 how many ended ids to keep (0: none), 2 their state, then the ids
-- Returns how many were new. A second run counts none again, as long as the list remembers them.
local most, state, new = tonumber(ARGV[1]), ARGV[2], 0
local now = redis.call('TIME')
now = now[1] .. '.' .. string.format('%06d', now[2])
if most == 0 then new = #ARGV - 2
else
  for i = 3, #ARGV do new = new + redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) end
  local over = redis.call('ZCARD', KEYS[1]) - most
  if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1) end
end
if new > 0 then redis.call('HINCRBY', KEYS[2], state, new) end
return new
