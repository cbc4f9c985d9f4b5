-- equip: let the records of a service's replicas say what its definition says now.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 service, 2 revision, 3 '1': a delay before the next start is done with, then field, value, ... (an empty
--       value: without that field)
-- Returns for each {state, key of the queue it was claimed from or '', the revision that its run uses or '', 1 where it was told
-- to stop}; {} where there is no record of a replica of this service. What a newer definition has written stays.
-- A second run changes nothing.
local service, revision = ARGV[1], tonumber(ARGV[2])

local function equip(key)
  local h = redis.pcall('HMGET', key, 'service', 'revision', 'state', 'at', 'uses', 'control')
  if h.err or h[1] ~= service then return {} end
  if (tonumber(h[2] or '0') or 0) < revision then
    for i = 4, #ARGV, 2 do
      if ARGV[i + 1] == '' then redis.call('HDEL', key, ARGV[i])
      else redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
    end
    redis.call('HSET', key, 'revision', ARGV[2])
    if ARGV[3] == '1' then redis.call('HDEL', key, 'backoff') end
  end
  return {h[3] or 'WAIT', h[4] or '', h[5] or '', h[6] == 'stop' and '1' or ''}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = equip(key) end
return out
