-- begin: may this claim run its task? The record decides, and is marked RUNNING where it may.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, 3 most deliveries, 4 most bytes of data, then for each task: fence, lost, early
-- Returns for each, the first that applies:
--   {'missing'}  {'wrong'} (no hash)  {'stale', fence}  {'tail', state, due}  {'ended', state}  {'early'}
--   {'elsewhere', key of the other queue}
--   {'run', task, data, bytes of data, attempt, deliveries, cleanup}; data is false where it is absent or too large
-- A second run with the same fence answers `run` or `tail` again and changes nothing.
local node, queue, limit, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local ENDED = {SUCCESS = 1, ERROR = 1, EXCEPTION = 1, TIMEOUT = 1, EXPIRED = 1, SKIPPED = 1, DISCARDED = 1, LOST = 1}

-- a time as the sorted set takes it, whatever a producer wrote
local function when(text)
  local n = tonumber(text or '')
  if not n or n ~= n then return '0' end
  return string.format('%.6f', math.max(math.min(n, 1e12), 0))
end

local function run(h, size, attempt, deliveries)
  return {'run', h[12] or false, h[15] or false, size, attempt, deliveries, h[13] or ''}
end

local function begin(key, fence, lost, early)
  local size = redis.pcall('HSTRLEN', key, 'data')
  if type(size) == 'table' then return {'wrong'} end
  local h = redis.call('HMGET', key, 'state', 'fence', 'closed', 'node', 'at', 'control', 'deliveries', 'due',
    'due_used', 'expires', 'attempt', 'task', 'cleanup', 'created', size <= most and 'data' or 'none')
  local state, last, closed, at = h[1] or 'WAIT', tonumber(h[2] or '0') or 0, h[3], h[5]
  if not h[1] and not h[2] and not h[12] and redis.call('EXISTS', key) == 0 then return {'missing'} end
  local f = tonumber(fence)
  local ours = last == f
  if last > f or (ours and (h[4] ~= node or at ~= queue)) then return {'stale', h[2]} end
  if ours then
    if closed == fence then return {'tail', state, when(h[8])} end
    return run(h, size, tonumber(h[11] or '1') or 1, tonumber(h[7] or '0') or 0)
  end
  local tail = lost == '1' and at == queue and closed ~= false and closed == h[2]
  if ENDED[state] or state == 'STOPPED' then
    if tail then return {'tail', state, ''} end
    return {'ended', state}
  elseif state == 'HELD' then return {'ended', state}
  elseif state == 'RETRY' or state == 'SCHEDULED' then
    if tail then return {'tail', state, when(h[8])} end
    if early == '1' then return {'early'} end
  elseif last > 0 and closed ~= h[2] and at and at ~= queue then return {'elsewhere', at} end
  local new, deliveries, why = 'RUNNING', tonumber(h[7] or '0') or 0, nil
  if h[6] == 'stop' then new = 'STOPPED'
  elseif h[10] and (tonumber(h[10]) or math.huge) <= tonumber(now) then new, why = 'EXPIRED', 'expired before it began'
  elseif state == 'RUNNING' then
    deliveries = deliveries + 1
    if deliveries > limit then new, why = 'LOST', 'its nodes died ' .. deliveries .. ' times while it ran' end
  elseif state == 'WAIT' and not h[9] and tonumber(h[8] or 'x') and tonumber(h[8]) > tonumber(now) then
    new = 'SCHEDULED'
  end
  local attempt = tonumber(h[11] or '0') or 0
  if new == 'RUNNING' and state ~= 'RUNNING' then attempt = attempt + 1 end
  redis.call('HSET', key, 'state', new, 'fence', fence, 'node', node, 'at', queue, 'due_used', '1',
    'last_update', now, 'deliveries', deliveries, 'created', h[14] or now, 'attempt', attempt,
    new == 'RUNNING' and 'started' or 'closed', new == 'RUNNING' and now or fence)
  if new ~= 'RUNNING' then
    local data = why and '"' .. why .. '"' or 'null'
    if why then redis.call('HSET', key, 'output', why, 'ended', now) end
    if new ~= 'SCHEDULED' then redis.call('HDEL', key, 'control') end
    redis.call('PUBLISH', key, '{"event":"' .. string.lower(new) .. '","data":' .. data .. '}')
    return {'tail', new, when(h[8])}
  end
  if h[11] then redis.call('HDEL', key, 'output', 'ended') end
  redis.call('PERSIST', key)
  redis.call('PUBLISH', key, '{"event":"running","data":{"node":"' .. node .. '","attempt":' .. attempt .. '}}')
  return run(h, size, attempt, deliveries)
end

local out = {}
for i, key in ipairs(KEYS) do
  local a = 3 * i + 2
  out[i] = begin(key, ARGV[a], ARGV[a + 1], ARGV[a + 2])
end
return out
