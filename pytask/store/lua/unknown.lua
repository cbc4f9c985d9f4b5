-- unknown: this node does not know the names of these tasks; another one may. Wait with a growing delay, at most so long.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, 3 how long a name may stay unknown (seconds), then for each task: fence, event (JSON)
-- Returns for each: {'gone'}, {'fenced'}, {'again', state, due}, {'ok', state, due} to be parked, or {'over'}: end it as
--   EXCEPTION. A second run with the same fence answers `again` and changes nothing.
local node, queue, patience = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local text = time[1] .. '.' .. string.format('%06d', time[2])
local now = tonumber(text)

-- a time as the sorted set takes it, whatever a producer wrote
local function when(text)
  if not text then return '' end
  local n = tonumber(text)
  if not n or n ~= n then return '0' end
  return string.format('%.6f', math.max(math.min(n, 1e12), 0))
end

local function unknown(key, fence, event)
  local h = redis.pcall('HMGET', key, 'fence', 'closed', 'node', 'at', 'unknown', 'attempt', 'state', 'due', 'control')
  if h.err or (not h[1] and redis.call('EXISTS', key) == 0) then return {'gone'} end
  if h[1] ~= fence or h[3] ~= node or h[4] ~= queue then return {'fenced'} end
  if h[2] == fence then return {'again', h[7] or 'WAIT', when(h[8])} end
  local first = tonumber(h[5] or text) or now
  if not (first > 0 and first <= now) then first = now end -- whatever a producer wrote
  local left = first + patience - now
  if h[9] ~= 'stop' and left <= 0 then return {'over'} end
  local attempt = h[6] and #h[6] <= 9 and tonumber(string.match(h[6], '^%d+$') or '1') or 1
  attempt = math.max(attempt - 1, 0)
  local state = attempt == 0 and 'SCHEDULED' or 'RETRY'
  local delay = math.min(math.max((now - first) / 2, 0.25), 5, math.max(left, 0))
  if h[9] == 'stop' then delay = 0 end
  local due = string.format('%.6f', now + delay)
  redis.call('HSET', key, 'state', state, 'closed', fence, 'due', due, 'due_used', '1', 'last_update', text,
    'unknown', string.format('%.6f', first), 'attempt', attempt)
  redis.call('PUBLISH', key, event)
  return {'ok', state, due}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = unknown(key, ARGV[2 * i + 2], ARGV[2 * i + 3]) end
return out
