-- note_applied: note how far a service is, for whoever looks at it next.
-- KEYS  1 applied
-- ARGV  1 revision, then field, value, ... (an empty value: without that field)
-- Returns 1; 0 where the definition is another one by now. Safe to repeat.
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
