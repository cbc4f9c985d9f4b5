-- lock: take the lock of a unique task, or keep it.
-- KEYS  1 unique
-- ARGV  1 id, 2 fence (0 before it was claimed), 3 the owner whose lock may be taken over, or ''
-- Returns {'ok'} where it is ours now, else {'taken', id of its owner}. Safe to repeat.
local value = redis.call('GET', KEYS[1])
if value then
  local fence, owner = string.match(value, '^(%d+) (.*)$')
  if owner and owner ~= ARGV[1] and (ARGV[3] == '' or owner ~= ARGV[3]) then return {'taken', owner} end
  if owner == ARGV[1] and tonumber(fence) > tonumber(ARGV[2]) then return {'ok'} end
end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[1])
return {'ok'}
