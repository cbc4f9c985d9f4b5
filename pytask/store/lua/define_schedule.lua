-- define_schedule: say what a schedule is; how far it has come stays.
-- KEYS  1 schedule
-- ARGV  1 how many fields a definition may have, then their names, then field, value, ... of this one
-- Returns 1, or 0 where it is defined so already: then nothing is changed. A second run answers 0.
local count, wanted = tonumber(ARGV[1]), {}
for i = count + 2, #ARGV, 2 do wanted[ARGV[i]] = ARGV[i + 1] end
local stored = redis.call('HMGET', KEYS[1], unpack(ARGV, 2, count + 1))
local changed, gone = false, {}
for i = 1, count do
  local new = wanted[ARGV[i + 1]]
  if new ~= (stored[i] or nil) then
    changed = true
    if not new then gone[#gone + 1] = ARGV[i + 1] end
  end
end
if not changed then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, count + 2))
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
return 1
