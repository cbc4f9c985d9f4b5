-- draft: make the records of fires before they are won, where there are none: HELD, so that nothing starts them.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 after how long (ms) a record goes that nobody lets start, then field, value, ... of all of them
-- Returns for each: 1 where it was made, 0 where there is a key already. A second run changes nothing.
local out = {}
for i, key in ipairs(KEYS) do
  out[i] = 0
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, unpack(ARGV, 2))
    redis.call('PEXPIRE', key, ARGV[1])
    out[i] = 1
  end
end
return out
