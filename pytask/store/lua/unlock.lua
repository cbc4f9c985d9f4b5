-- unlock: give up the lock of a unique task that ended.
-- KEYS  1 unique
-- ARGV  1 id, 2 fence
-- Returns 1 where it was ours; 0 where it is another's, or that of a newer run of the same id. Safe to repeat.
local value = redis.call('GET', KEYS[1])
local fence, owner = string.match(value or '', '^(%d+) (.*)$')
if owner ~= ARGV[1] or tonumber(fence) > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
return 1
