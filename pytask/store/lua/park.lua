-- park: give claims up until a time.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 again, 5 due
-- ARGV  1 node, then for each: id, fence, when (epoch seconds)
-- Returns how many were parked. Guard: of:<node>[id] begins with the fence; a second run changes nothing.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local parked = 0
for i = 2, #ARGV, 3 do
  local id, fence, when = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if not when or when ~= when then when = 0 end -- a record may hold anything
  when = string.format('%.6f', math.max(math.min(when, 1e12), 0))
  local mine = redis.call('HGET', KEYS[3], id)
  if mine and string.match(mine, '^%d+') == fence then
    redis.call('HDEL', KEYS[3], id)
    if redis.call('HGET', KEYS[2], id) == ARGV[1] .. ' ' .. fence then redis.call('HDEL', KEYS[2], id) end
    redis.call('ZADD', KEYS[5], when, id)
    -- pushed meanwhile: it will be claimed as early, which is harmless
    if redis.call('SREM', KEYS[4], id) == 1 then redis.call('LPUSH', KEYS[1], id) end
    parked = parked + 1
  end
end
return parked
