-- survive: runs that have lasted long enough: no death counts against their tasks any more.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, then for each task: fence
-- Returns for each: 1, or 0 where the record is another's or the run has ended. Safe to repeat.
local out = {}
for i, key in ipairs(KEYS) do
  local fence = ARGV[i + 2]
  local h = redis.pcall('HMGET', key, 'fence', 'node', 'closed', 'at')
  local ours = not h.err and h[1] == fence and h[2] == ARGV[1] and h[3] ~= fence and h[4] == ARGV[2]
  if ours then redis.call('HDEL', key, 'suspect') end
  out[i] = ours and 1 or 0
end
return out
