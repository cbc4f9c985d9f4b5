-- reopen: forget how a workflow went, so that it begins anew.
-- KEYS  1 workflow, 2 tasks, 3 gates, 4 open, 5 ready
-- ARGV  1 the round that begins: the fence of the run that begins it. What its tasks of before still tell is passed over
-- Returns 1. A second run does the same.
for _, key in ipairs(KEYS) do redis.call('DEL', key) end
redis.call('HSET', KEYS[1], 'round', ARGV[1])
return 1
