-- rescue: put an id that is in no structure back into its queue (an asynchronous failover took it out).
-- KEYS  1 q, 2 claims, 3 due, 4 nodes, then the inboxes of all nodes that live or were reaped a moment ago
-- ARGV  1 id, 2 `1` to put it back, `0` to look only
-- Returns 1 where a live node owns it, it is due, or it is in a list; else 0. Safe to repeat.
local owner = redis.call('HGET', KEYS[2], ARGV[1])
local mark = '-back'
if owner and string.sub(owner, 1, 1) == '-' then mark = owner
elseif owner then
  if redis.call('HEXISTS', KEYS[4], string.match(owner, '^(%S+) ')) == 1 then return 1 end
  mark = '-lost push' -- what it had begun may lack its tail
end
if redis.call('ZSCORE', KEYS[3], ARGV[1]) or redis.call('LPOS', KEYS[1], ARGV[1]) then return 1 end
for i = 5, #KEYS do
  if redis.call('LPOS', KEYS[i], ARGV[1]) then return 1 end
end
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[2], ARGV[1], mark)
  redis.call('LPUSH', KEYS[1], ARGV[1])
end
return 0
