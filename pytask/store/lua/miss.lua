-- miss: an id whose hash has not come (yet): wait for it a while, then put it on the dead list.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 again, 5 due, 6 missing, 7 dead, 8 control
-- ARGV  1 node, 2 how long a hash may stay away (seconds), 3 look again after (seconds), 4 how many dead ids to keep,
--       then for each: id, fence, how (push: a fresh push, the wait begins anew; back: promoted)
-- Returns for each: the epoch second at which it is looked at again, 'dead', or '' where the guard refused it.
-- Guard: of:<node>[id] begins with the fence; a second run changes nothing.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[7])
redis.call('HLEN', KEYS[8])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local out = {}
for i = 5, #ARGV, 3 do
  local id, fence, how = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local mine = redis.call('HGET', KEYS[3], id)
  if not mine or string.match(mine, '^%d+') ~= fence then
    out[#out + 1] = ''
  else
    redis.call('HDEL', KEYS[3], id)
    redis.call('HDEL', KEYS[8], id) -- a stop that was noted for an earlier claim, of a record that is gone
    if redis.call('HGET', KEYS[2], id) == ARGV[1] .. ' ' .. fence then redis.call('HDEL', KEYS[2], id) end
    local again = redis.call('SREM', KEYS[4], id) == 1
    local first = how == 'back' and tonumber(redis.call('ZSCORE', KEYS[6], id) or now) or now
    local left = first + tonumber(ARGV[2]) - now
    if left > 0 or again then
      local when = string.format('%.6f', now + math.max(math.min(tonumber(ARGV[3]), left), 0))
      redis.call('ZADD', KEYS[6], string.format('%.6f', again and now or first), id)
      redis.call('ZADD', KEYS[5], when, id)
      if again then redis.call('LPUSH', KEYS[1], id) end
      out[#out + 1] = when
    else
      redis.call('ZREM', KEYS[6], id)
      redis.call('ZREM', KEYS[5], id)
      redis.call('LPUSH', KEYS[7], id)
      out[#out + 1] = 'dead'
    end
  end
end
redis.call('LTRIM', KEYS[7], 0, tonumber(ARGV[4]) - 1)
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - tonumber(ARGV[2]) - 3600)
return out
