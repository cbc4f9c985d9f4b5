-- define: write the definition of a service, where that changes something.
-- KEYS  1 service
-- ARGV  1 how: 'set' replaces what stands there; 'code' as well, but only where code has defined something else since it
--       did so last (what was changed by hand meanwhile stays); 'change' writes some fields of a service that is there;
--       'count' as well, a number that grows by one each time (the value is not looked at),
--       2 digest of what code defines ('' for none), then field, value, ... (an empty value: without that field)
-- Returns -1 where there is no service to change, 1 where something was changed, else 0. A second run changes nothing (but a
-- count).
local how, digest = ARGV[1], ARGV[2]
local before, there = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #there, 2 do before[there[i]] = there[i + 1] end
if (how == 'change' or how == 'count') and #there == 0 then return -1 end
if how == 'code' and before.defined == digest then return 0 end
if how == 'count' then
  redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
  return 1
end
local changed, given = false, {defined = true, reload = true}
for i = 3, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  given[field] = true
  if value == '' then
    if before[field] then
      redis.call('HDEL', KEYS[1], field)
      changed = true
    end
  elseif before[field] ~= value then
    redis.call('HSET', KEYS[1], field, value)
    changed = true
  end
end
if how ~= 'change' then
  for field in pairs(before) do
    if not given[field] then
      redis.call('HDEL', KEYS[1], field)
      changed = true
    end
  end
end
if digest ~= '' and before.defined ~= digest then redis.call('HSET', KEYS[1], 'defined', digest) end
return changed and 1 or 0
