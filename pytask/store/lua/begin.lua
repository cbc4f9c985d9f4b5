-- begin: may this claim run its task? The record decides, and is marked RUNNING where it may.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, 3 key of the default queue, 4 how many deaths may count against a task, 5 most bytes
--       of data in the answer, 6 what the node wants: '', 'granted' (start it though it is on probation) or 'stop' (do not start it),
--       7 names of tasks that may start only once, with spaces between, then for each task: fence, lost, early
-- Returns for each, the first that applies:
--   {'missing'}  {'wrong'} (no hash)  {'stale', fence}  {'tail', state, due, cleanup}  {'ended', state}  {'early'}
--   {'elsewhere', key of the other queue}
--   {'probation', suspect, now}: it may start when the node has room for one like it
--   {'run', task, data, bytes of data, attempt, deliveries, cleanup, suspect, once}; data is false where it is absent or
--     too large; once is 1 where it may start only once. {'run', task, data} is the first start of a task of which
--     all else is 0 or absent
-- A second run with the same fence answers `run`, `probation` or `tail` again and changes nothing.
local node, queue, first, limit, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local wish = ARGV[6]
local CAREFUL = math.max(math.min(limit - 1, 2), 1) -- from so many counted deaths on a task starts on probation
local ONCE = {}
for name in string.gmatch(ARGV[7], '%S+') do ONCE[name] = true end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
-- fences are microseconds of a server's clock: what is a day ahead of ours no server has given out
local latest = (tonumber(time[1]) + 86400) * 1e6
local ENDED = {SUCCESS = 1, ERROR = 1, EXCEPTION = 1, TIMEOUT = 1, EXPIRED = 1, SKIPPED = 1, DISCARDED = 1, LOST = 1}

-- a time as the sorted set takes it, whatever a producer wrote
local function when(text)
  local n = tonumber(text or '')
  if not n or n ~= n then return '0' end
  return string.format('%.6f', math.max(math.min(n, 1e12), 0))
end

-- a whole number of at most so many digits; 0 for anything else that a producer wrote
local function whole(text, digits)
  return text and #text <= digits and string.find(text, '^%d+$') and tonumber(text) or 0
end

-- is it the key of a queue of this namespace? Nothing else that a record names is ever pushed to
local function is_queue(key)
  if key == first then return true end
  local name = string.sub(key, 1, #first + 1) == first .. ':' and string.sub(key, #first + 2) or ''
  return #name <= 64 and string.find(name, '^[%w_.-]+$') ~= nil
end

-- small numbers as text: the server's own conversion costs more than a lookup
local TEXT = {[0] = '0', '1', '2', '3', '4', '5'}
local events = {} -- attempt -> event
local function running(attempt)
  local event = events[attempt]
  if not event then
    event = '{"event":"running","data":{"node":"' .. node .. '","attempt":' .. attempt .. '}}'
    events[attempt] = event
  end
  return event
end

local function run(h, size, attempt, deliveries, suspect, once)
  local data = size <= most and h[15] or false
  if attempt == 1 and data and h[12] and deliveries == 0 and suspect == 0 and not once and not h[13] then
    return {'run', #h[12] <= 256 and h[12] or string.sub(h[12], 1, 256), data}
  end
  return {'run', h[12] and string.sub(h[12], 1, 256) or false, data, size, attempt, deliveries, h[13] or '',
    suspect, once and 1 or 0}
end

local function begin(key, fence, lost, early)
  local size = redis.pcall('HSTRLEN', key, 'data')
  if type(size) == 'table' then return {'wrong'} end
  local h = redis.call('HMGET', key, 'state', 'fence', 'closed', 'node', 'at', 'control', 'deliveries', 'due',
    'due_used', 'expires', 'attempt', 'task', 'cleanup', 'created', size <= most and 'data' or '', 'local', 'suspect',
    'rescheduling')
  local state, last, closed, at = h[1] or 'WAIT', whole(h[2], 16), h[3], h[5]
  if last > latest then last = 0 end
  if not h[1] and not h[2] and not h[12] and redis.call('EXISTS', key) == 0 then return {'missing'} end
  if h[16] then return {'ended', state} end -- the record of a node's local task: nobody else may run it
  local f = tonumber(fence)
  local ours = last == f
  if last > f or (ours and (h[4] ~= node or at ~= queue)) then return {'stale', h[2]} end
  local deliveries, suspect = whole(h[7], 9), whole(h[17], 9)
  -- what the record says goes before what the class says; anything but `true` and `false` says nothing
  local once = h[18] == 'false' or (h[18] ~= 'true' and h[12] and ONCE[h[12]])
  if ours then
    local waits = state == 'WAIT' and suspect >= CAREFUL
    if closed == fence then return waits and {'probation', suspect, now} or {'tail', state, when(h[8]), h[13] or ''} end
    return run(h, size, math.max(whole(h[11], 9), 1), deliveries, suspect, once)
  end
  local tail = lost ~= '0' and at == queue and closed ~= false and closed == h[2]
  if ENDED[state] or state == 'STOPPED' then
    if tail then return {'tail', state, '', h[13] or ''} end
    return {'ended', state}
  elseif state == 'HELD' then return {'ended', state}
  elseif state == 'RETRY' or state == 'SCHEDULED' then
    if h[6] ~= 'stop' then -- else it would be obeyed only at the time for which the task is parked
      if tail then return {'tail', state, when(h[8]), h[13] or ''} end
      if early == '1' then return {'early'} end
    end
  elseif last > 0 and closed ~= h[2] and at and at ~= queue and is_queue(at) then return {'elsewhere', at} end
  local died, before, new, why = state == 'RUNNING', suspect, 'RUNNING', nil
  if died and lost == '2' then suspect = suspect + 1 end
  if h[6] == 'stop' then new = 'STOPPED'
  elseif wish == 'stop' then new = 'STOPPED'
  elseif died and once and last > 0 and closed ~= h[2] then
    new, why = 'LOST', 'its node died while it ran, and it may start only once (rescheduling is false)'
  elseif h[10] and (tonumber(h[10]) or math.huge) <= tonumber(now) then new, why = 'EXPIRED', 'expired before it began'
  elseif died and suspect >= limit then
    new = 'LOST'
    why = suspect .. ' deaths of its nodes in a row count against it (max_deliveries is ' .. limit .. ')'
  elseif state == 'WAIT' and not h[9] and tonumber(h[8] or 'x') and tonumber(h[8]) > tonumber(now) then
    new = 'SCHEDULED'
  elseif suspect >= CAREFUL and wish ~= 'granted' then new = 'WAIT'
  end
  local attempt = whole(h[11], 9)
  -- a stop, or its time, is what ends a start whose node died: the others were ended by that death
  if new == 'STOPPED' or new == 'EXPIRED' then suspect = before elseif died then deliveries = deliveries + 1 end
  if new == 'RUNNING' and not died then attempt = attempt + 1 end
  if new == 'WAIT' and died then attempt = math.max(attempt - 1, 0) end -- it was neither ended by itself nor goes on
  redis.call('HSET', key, 'state', new, 'fence', fence, 'node', node, 'at', queue, 'last_update', now,
    'created', h[14] or now, 'attempt', TEXT[attempt] or attempt,
    new == 'RUNNING' and 'started' or 'closed', new == 'RUNNING' and now or fence)
  if h[9] ~= '1' and (h[8] or h[9]) then redis.call('HSET', key, 'due_used', '1') end
  if h[7] or deliveries > 0 then redis.call('HSET', key, 'deliveries', deliveries) end
  if suspect ~= before then redis.call('HSET', key, 'suspect', suspect) end
  if new == 'WAIT' then
    redis.call('PERSIST', key)
    if died then redis.call('PUBLISH', key, '{"event":"wait","data":"on probation: ' .. suspect .. ' deaths of its nodes"}') end
    return {'probation', suspect, now}
  end
  if new ~= 'RUNNING' then
    local data = why and '"' .. why .. '"' or 'null'
    if why then redis.call('HSET', key, 'output', why) end
    if ENDED[new] then redis.call('HSET', key, 'ended', now) end
    if new ~= 'SCHEDULED' then redis.call('HDEL', key, 'control') end
    redis.call('PUBLISH', key, '{"event":"' .. string.lower(new) .. '","data":' .. data .. '}')
    return {'tail', new, when(h[8]), h[13] or ''}
  end
  -- in the record, so that a node that does not know the class obeys it too
  if once and h[18] ~= 'false' then redis.call('HSET', key, 'rescheduling', 'false') end
  if h[11] then redis.call('HDEL', key, 'output', 'ended') end
  redis.call('PERSIST', key)
  redis.call('PUBLISH', key, running(attempt))
  return run(h, size, attempt, deliveries, suspect, once)
end

local out = {}
for i, key in ipairs(KEYS) do
  local a = 3 * i + 5
  out[i] = begin(key, ARGV[a], ARGV[a + 1], ARGV[a + 2])
end
return out
