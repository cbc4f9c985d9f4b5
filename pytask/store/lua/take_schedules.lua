-- take_schedules: take schedules whose time has come, for one node, which looks at them; by the server's clock.
-- KEYS  1 schedules
-- ARGV  1 how many at most, 2 for how long they are its own (seconds), then names that it passes over
-- Returns {now, name, score, ...}: the score is the end of that time, when others take them. A second run takes others: those
-- of the first come again when their time is over.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local mine = string.format('%.6f', now + tonumber(ARGV[2]))
local most, passed, out = tonumber(ARGV[1]), {}, {string.format('%.6f', now)}
for i = 3, #ARGV do passed[ARGV[i]] = true end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', out[1], 'LIMIT', 0, most + #ARGV - 2)
for _, name in ipairs(due) do
  if not passed[name] and #out < 2 * most then
    redis.call('ZADD', KEYS[1], mine, name)
    out[#out + 1] = name
    out[#out + 1] = mine
  end
end
return out
