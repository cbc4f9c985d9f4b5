-- finish: write the outcome of a run into its record, once, and tell those who listen.
-- KEYS  task, ...; where events are kept each with its stream behind it: task, events, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, 3 how many events a stream keeps, 0 for none, 4 how long (ms) it stays without a new one,
--       then for each task: fence, state, output, due (of RETRY: epoch seconds, or `+` and seconds from now; of HELD: `stop`
--       where the run has obeyed a stop; else ''), event (JSON)
-- Returns for each: {'gone'} the record is no more; {'fenced'} a newer run owns it; {'ok' | 'again' | 'restarted', state, due};
-- 'ok' alone where the state is the one that was given and there is no due. With HELD, due is `stop` where a stop came that
-- the run has not seen: whoever asked found it RUNNING, and left it to this node to push it.
-- A second run with the same fence answers `again` and changes nothing.
local node, queue, keep, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])

-- a time as the sorted set takes it, whatever a producer wrote
local function when(text)
  if not text then return '' end
  local n = tonumber(text)
  if not n or n ~= n then return '0' end
  return string.format('%.6f', math.max(math.min(n, 1e12), 0))
end

-- did a restart follow a stop so shortly before that the message of that stop came only now?
local UNDER_WAY = 3 -- seconds
local function is_taken_back(control)
  local since = tonumber(string.match(control or '', '^restart%a* ([%d.]+)$') or '')
  return since and math.abs(tonumber(now) - since) < UNDER_WAY
end

-- publish an event; one that is kept goes into the stream first, and names its place there
local function tell(key, stream, event)
  if stream then
    local id = redis.pcall('XADD', stream, 'MAXLEN', keep, '*', 'event', event)
    if type(id) == 'string' then
      redis.call('PEXPIRE', stream, ttl)
      redis.call('HSET', key, 'kept', '1')
      event = string.sub(event, 1, -2) .. ',"id":"' .. id .. '"}'
    end
  end
  redis.call('PUBLISH', key, event)
end

local function finish(key, stream, fence, given, output, due, event)
  local state = given
  local h = redis.pcall('HMGET', key, 'state', 'fence', 'closed', 'node', 'control', 'at', 'unknown', 'suspect', 'service')
  if h.err or (not h[2] and redis.call('EXISTS', key) == 0) then return {'gone'} end
  if h[2] ~= fence or h[4] ~= node or h[6] ~= queue then return {'fenced'} end
  if given == 'HELD' then due = h[5] == 'stop' and due ~= 'stop' and 'stop' or '' end
  if h[3] == fence then
    return {'again', h[1] or 'WAIT', h[1] == 'HELD' and due or when(redis.call('HGET', key, 'due'))}
  end
  -- it ended, and its node did not: no death counts against it any more
  if h[8] and state ~= 'WAIT' then redis.call('HDEL', key, 'suspect') end
  -- a workflow that is put back obeys a stop by itself when it begins again: its tasks have to hear of it
  local obeys = state == 'WAIT' and h[5] == 'stop' and redis.call('HGET', key, 'task') == 'pytask/workflow'
  if (state == 'RETRY' or state == 'WAIT') and h[5] == 'stop' and not obeys then
    -- why the attempt failed is kept, for whoever asks later
    if state == 'RETRY' and stream then redis.pcall('XADD', stream, 'MAXLEN', keep, '*', 'event', event) end
    state, output, due, event = 'STOPPED', '', '', '{"event":"stopped","data":null}'
  end
  if (h[1] == 'WAIT' and state ~= 'WAIT' and not (state == 'STOPPED' and h[5] == 'stop'))
    or (state == 'STOPPED' and is_taken_back(h[5])) then
    redis.call('HSET', key, 'state', 'WAIT', 'closed', fence, 'output', output, 'last_update', now)
    tell(key, stream, event)
    return {'restarted', 'WAIT', ''}
  end
  if state == 'RETRY' then
    -- of a replica of a service: the next delay grows from this one
    if h[9] and string.sub(due, 1, 1) == '+' then redis.call('HSET', key, 'backoff', string.sub(due, 2)) end
    if string.sub(due, 1, 1) == '+' then due = when(tonumber(now) + (tonumber(string.sub(due, 2)) or 0)) end
    redis.call('HSET', key, 'state', state, 'closed', fence, 'output', output, 'last_update', now, 'due', due,
      'due_used', '1')
  elseif state == 'HELD' then
    -- it waits for the tasks that it steers, and is pushed when it is to go on
    redis.call('HSET', key, 'state', state, 'closed', fence, 'last_update', now)
  elseif state == 'WAIT' then
    -- put back by its node: this start was ended neither by its own outcome nor by a death
    local attempt = redis.call('HGET', key, 'attempt')
    attempt = attempt and #attempt <= 9 and tonumber(string.match(attempt, '^%d+$') or '1') or 1
    redis.call('HSET', key, 'state', state, 'closed', fence, 'last_update', now,
      'attempt', math.max(attempt - 1, 0))
  else
    redis.call('HSET', key, 'state', state, 'closed', fence, 'output', output, 'last_update', now,
      state ~= 'STOPPED' and 'ended' or 'last_update', now)
    if h[5] or h[7] then redis.call('HDEL', key, 'control', 'unknown') end
  end
  tell(key, stream, event)
  return state == given and due == '' and 'ok' or {'ok', state, due}
end

local out, stride = {}, keep == '0' and 1 or 2
for i = 1, #KEYS, stride do
  local n = (i - 1) / stride
  local a = 5 * n + 5
  out[n + 1] = finish(KEYS[i], stride == 2 and KEYS[i + 1], ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4])
end
return out
