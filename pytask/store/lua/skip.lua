-- skip: end tasks of a workflow that were never begun, as SKIPPED.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 the reason, 2 '1': also those that wait in a queue, or for their time, at their first start
-- Returns for each: {state, queue field or '', at or ''}: the state as it is now; {'missing'}. What holds or wants a place in
-- a limit is left alone, and a workflow that has begun: whoever begins it ends it. A second run
-- answers SKIPPED again and changes nothing.
local why, waiting = ARGV[1], ARGV[2] == '1'
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])

-- text as JSON
local function quoted(text)
  return '"' .. string.gsub(text, '[%c"\\]', function(c) return string.format('\\u%04x', string.byte(c)) end) .. '"'
end

local function skip(key)
  local h = redis.pcall('HMGET', key, 'state', 'queue', 'at', 'fence', 'limits', 'attempt', 'task')
  if h.err or (not h[1] and not h[7]) then return {'missing'} end
  local state = h[1] or 'WAIT'
  -- a workflow that was put back at its first start may have tasks already: its next run stops them
  local never = (h[6] or '0') == '0' and not h[5] and not (h[4] and h[7] == 'pytask/workflow')
  if (state == 'HELD' and not h[4]) or (waiting and never and (state == 'WAIT' or state == 'SCHEDULED')) then
    state = 'SKIPPED'
    redis.call('HSET', key, 'state', state, 'output', why, 'ended', now, 'last_update', now)
    redis.call('HDEL', key, 'control')
    redis.call('PUBLISH', key, '{"event":"skipped","data":' .. quoted(why) .. '}')
  end
  return {state, h[2] or '', h[3] or ''}
end

local out = {}
for i, key in ipairs(KEYS) do out[i] = skip(key) end
return out
