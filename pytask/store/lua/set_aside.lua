-- set_aside: take all that waits in a queue out of it, to be purged.
-- KEYS  1 q, 2 purged, 3 due
-- ARGV  1 how many ids to move at most, where that takes several calls; 2 '1': what waits for a time as well
-- Returns {1 where it must be called again, how many ids are set aside}. A second run also takes what was pushed meanwhile.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local before, most, more = redis.call('LLEN', KEYS[2]), tonumber(ARGV[1]), 0

local function move(ids)
  if #ids > 0 then redis.call('LPUSH', KEYS[2], unpack(ids)) end
  if #ids == most then more = 1 end
end

if before > 0 then -- what an interrupted purge has left
  move(redis.call('RPOP', KEYS[1], most) or {})
elseif redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
if ARGV[2] == '1' then
  local ids = redis.call('ZRANGE', KEYS[3], 0, most - 1)
  if #ids > 0 then redis.call('ZREM', KEYS[3], unpack(ids)) end
  move(ids)
end
return {more, redis.call('LLEN', KEYS[2])}
