-- cleanup: let the records of ended tasks expire.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 what classes say of theirs: `name result_ttl failure_ttl`, with spaces between all of them, '-' for what one does
--       not say; 2 '1': also tasks of workflows, '2': also workflows themselves (what belongs to one goes before it, so that
--       whoever dies meanwhile leaves a trace of it), 3 with these the fence of the workflow's run that has ended: what has
--       begun anew since stays; then state, seconds to live, ... for every ended state; 0 removes at once
-- Returns for each: the seconds it has left, -1 where it has not ended (or runs again), -2 where it is kept
-- (`cleanup` false, or until its workflow has ended); {seconds, 1 where events of it are kept, 1 where it is a workflow, its
-- fence} where there is more that is to go with it. The record's own
-- `result_ttl` (of a failure `failure_ttl`) goes before what its class says, and that before the seconds given. Safe to
-- repeat.
local FAILED = {ERROR = 1, EXCEPTION = 1, TIMEOUT = 1, EXPIRED = 1, LOST = 1}
local ttls, ms, out, classes = {}, {}, {}, nil
for name, result, failure in string.gmatch(ARGV[1], '(%S+) (%S+) (%S+)') do
  classes = classes or {}
  classes[name] = {tonumber(result), tonumber(failure)}
end
for i = 4, #ARGV, 2 do
  local ttl = tonumber(ARGV[i + 1])
  ttls[ARGV[i]] = ttl
  ms[ttl] = string.format('%.0f', math.ceil(ttl * 1000))
end
-- a duration such as `10` or `5m`, in seconds; nil for anything else
local UNITS = {[''] = 1, s = 1, ms = 0.001, m = 60, h = 3600, d = 86400}
local function seconds(text)
  local digits, unit = string.match(text, '^%s*([%d.]+) ?(%a*)%s*$')
  return digits and UNITS[unit] and tonumber(digits) and tonumber(digits) * UNITS[unit]
end

-- does a task belong to this workflow? A producer may write anything into the field
local function is_of_workflow(key, workflow)
  return workflow ~= '' and not string.find(workflow, '[{}]') and string.find(key, 'task-' .. workflow .. ':', 1, true)
end

local fields = {'state', 'cleanup', 'result_ttl', 'failure_ttl', 'kept', 'workflow', 'task', 'round', 'fence'}
-- has it begun anew since the workflow's run that has ended?
local function is_newer(h)
  local mine = ARGV[2] == '1' and h[8] or ARGV[2] == '2' and h[9] or '0'
  return ARGV[2] ~= '0' and (tonumber(mine) or 0) > (tonumber(ARGV[3]) or 0)
end
for i, key in ipairs(KEYS) do
  local h = redis.pcall('HMGET', key, unpack(fields))
  local ttl = not h.err and h[1] and ttls[h[1]]
  if not ttl then out[i] = -1
  elseif is_newer(h) then out[i] = -1
  elseif h[2] == 'false' or (h[6] and ARGV[2] == '0' and is_of_workflow(key, h[6])) then out[i] = -2
  else
    local failed = FAILED[h[1]]
    local own = h[failed and 4 or 3]
    own = own and seconds(own)
    local class = classes and h[7] and classes[h[7]]
    if own and own < 1e10 then ttl = own
    elseif class then ttl = class[failed and 2 or 1] or ttl end
    if h[7] == 'pytask/workflow' and ARGV[2] ~= '2' then -- its turn comes
    elseif ttl > 0 then redis.call('PEXPIRE', key, ms[ttl] or math.ceil(ttl * 1000))
    else redis.call('DEL', key) end
    if h[5] or h[7] == 'pytask/workflow' then
      out[i] = {math.ceil(ttl), h[5] and 1 or 0, h[7] == 'pytask/workflow' and 1 or 0, h[9] or '0'}
    else out[i] = math.ceil(ttl) end
  end
end
return out
