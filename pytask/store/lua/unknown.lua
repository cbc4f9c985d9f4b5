-- unknown: this node does not know the task's name; another one may. Wait with a growing delay, at most so long.
-- KEYS  task
-- ARGV  1 node, 2 key of the queue, 3 fence, 4 how long a name may stay unknown (seconds), 5 event (JSON)
-- Returns {'gone'}, {'fenced'}, {'again', state, due}, {'ok', state, due} to be parked, or {'over'}: end it as EXCEPTION.
-- A second run with the same fence answers `again` and changes nothing.
local h = redis.pcall('HMGET', KEYS[1], 'fence', 'closed', 'node', 'at', 'unknown', 'attempt', 'state', 'due', 'control')
if h.err or (not h[1] and redis.call('EXISTS', KEYS[1]) == 0) then return {'gone'} end
if h[1] ~= ARGV[3] or h[3] ~= ARGV[1] or h[4] ~= ARGV[2] then return {'fenced'} end
if h[2] == ARGV[3] then return {'again', h[7] or 'WAIT', h[8] or ''} end
local time = redis.call('TIME')
local text = time[1] .. '.' .. string.format('%06d', time[2])
local now = tonumber(text)
local first = tonumber(h[5] or text) or now
if not (first > 0 and first <= now) then first = now end -- whatever a producer wrote
local left = first + tonumber(ARGV[4]) - now
if h[9] ~= 'stop' and left <= 0 then return {'over'} end
local attempt = h[6] and #h[6] <= 9 and tonumber(string.match(h[6], '^%d+$') or '1') or 1
attempt = math.max(attempt - 1, 0)
local state = attempt == 0 and 'SCHEDULED' or 'RETRY'
local delay = math.min(math.max((now - first) / 2, 0.25), 5, math.max(left, 0))
if h[9] == 'stop' then delay = 0 end
local due = string.format('%.6f', now + delay)
redis.call('HSET', KEYS[1], 'state', state, 'closed', ARGV[3], 'due', due, 'last_update', text,
  'unknown', string.format('%.6f', first), 'attempt', attempt)
redis.call('PUBLISH', KEYS[1], ARGV[5])
return {'ok', state, due}
