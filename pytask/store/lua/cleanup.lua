-- cleanup: let the records of ended tasks expire.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  state, seconds to live, ... for every ended state; 0 removes at once
-- Returns for each: the seconds it has left, -1 where it has not ended (or runs again), -2 where it keeps itself
-- (`cleanup` false). The record's own `result_ttl` goes before the seconds given for SUCCESS. Safe to repeat.
local ttls, ms, out = {}, {}, {}
for i = 1, #ARGV, 2 do
  local ttl = tonumber(ARGV[i + 1])
  ttls[ARGV[i]] = ttl
  ms[ttl] = string.format('%.0f', math.ceil(ttl * 1000))
end
for i, key in ipairs(KEYS) do
  local h = redis.pcall('HMGET', key, 'state', 'cleanup', 'result_ttl')
  local ttl = not h.err and h[1] and ttls[h[1]]
  if not ttl then out[i] = -1
  elseif h[2] == 'false' then out[i] = -2
  else
    local own = h[1] == 'SUCCESS' and tonumber(h[3] or 'x')
    if own and own >= 0 and own < 1e10 then ttl = own end
    if ttl > 0 then redis.call('PEXPIRE', key, ms[ttl] or math.ceil(ttl * 1000)) else redis.call('DEL', key) end
    out[i] = math.ceil(ttl)
  end
end
return out
