-- drop_purged: forget ids that were set aside and are dealt with.
-- KEYS  1 q, 2 purged, 3 claims
-- ARGV  for each, in the order in which they stand at the end of `purged`, the last one first: id, '1' where it goes back
--       to the head of the queue
-- Returns how many were forgotten; it ends where another id stands at the end: another purge was faster. Safe to repeat.
redis.call('LLEN', KEYS[1])
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  if redis.call('LINDEX', KEYS[2], -1) ~= id then return (i - 1) / 2 end
  redis.call('RPOP', KEYS[2])
  if ARGV[i + 1] == '1' then redis.call('RPUSH', KEYS[1], id)
  else
    -- a mark tells of an id in the queue: left behind, it would bring this one back
    local mark = redis.call('HGET', KEYS[3], id)
    if mark and string.sub(mark, 1, 1) == '-' then redis.call('HDEL', KEYS[3], id) end
  end
end
return #ARGV / 2
