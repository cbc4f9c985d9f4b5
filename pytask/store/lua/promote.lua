-- promote: put ids whose time has come back into the queue, by the server's clock.
-- KEYS  1 q, 2 claims, 3 due
-- ARGV  1 how many at most
-- Returns {how many were put back, seconds until the next is due as text, or '' where none waits}.
-- An id that is claimed, or already on its way back, is looked at again a second later.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local promoted = 0
for _, id in ipairs(ids) do
  if redis.call('HEXISTS', KEYS[2], id) == 1 then
    redis.call('ZADD', KEYS[3], string.format('%.6f', now + 1), id)
  else
    redis.call('ZREM', KEYS[3], id)
    redis.call('HSET', KEYS[2], id, '-back')
    redis.call('LPUSH', KEYS[1], id)
    promoted = promoted + 1
  end
end
local next = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {promoted, next[2] and string.format('%.6f', math.max(tonumber(next[2]) - now, 0)) or ''}
