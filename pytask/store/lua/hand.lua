-- hand: give claims up to another node, which takes them next.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 again, 5 due, 6 control, 7 nodes, 8 inbox:<node>
-- ARGV  1 node, 2 the other node, whose inbox that is, then for each: id, fence
-- Returns how many are in the other node's inbox; the others are at the head of the queue, since that node is gone, or being
-- reaped. Guard: of:<node>[id] begins with the fence; a second run changes nothing.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[8])
local there, handed = redis.call('HEXISTS', KEYS[7], ARGV[2]) == 1, 0
for i = 3, #ARGV, 2 do
  local id, fence = ARGV[i], ARGV[i + 1]
  local mine = redis.call('HGET', KEYS[3], id)
  if mine and string.match(mine, '^%d+') == fence then
    redis.call('HDEL', KEYS[3], id)
    if redis.call('HGET', KEYS[2], id) == ARGV[1] .. ' ' .. fence then redis.call('HDEL', KEYS[2], id) end
    redis.call('ZREM', KEYS[5], id)
    redis.call('SREM', KEYS[4], id)
    redis.call('HDEL', KEYS[6], id)
    if there then
      redis.call('LPUSH', KEYS[8], id)
      handed = handed + 1
    else redis.call('RPUSH', KEYS[1], id) end
  end
end
return handed
