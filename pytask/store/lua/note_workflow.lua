-- note_workflow: write fields of a workflow's own record, unless the workflow was removed: nothing comes back of it.
-- KEYS  1 workflow
-- ARGV  field, value, ...
-- Returns 1, or 0 where it is not laid out. Safe to repeat.
if redis.call('HEXISTS', KEYS[1], 'laid') == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
