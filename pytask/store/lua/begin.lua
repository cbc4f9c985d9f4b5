-- begin: may this claim run its task? The record decides, and is marked RUNNING where it may.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 node, 2 key of the queue, 3 key of the default queue, 4 how many deaths may count against a task, 5 most bytes
--       of data in the answer, 6 what the node wants: '', 'granted' (start it though it is on probation), 'admitted' (its
--       limits let it start; they stand in place of `early`), 'stop' (do not start it), 'defer' (not before a time, which
--       stands there, or `+` and seconds from now; behind it its limits) or 'skip' (never, for the reason that stands there), 7 what classes say of their tasks: a line for each with its name and
--       `once`, `gate`, `steers` (it may begin again while it is HELD, and obeys a stop by itself), `delay=<seconds>`, `expires_in=<seconds>`, then for each task: fence, lost, early
-- Returns for each, the first that applies:
--   {'missing'}  {'wrong'} (no hash)  {'stale', fence}  {'tail', state, due, cleanup, limits or '', workflow or '', round or ''} (the last three where there is one of them)
--   {'ended', state}  {'early'}
--   {'elsewhere', key of the other queue}
--   {'probation', suspect, now}: it may start when the node has room for one like it
--   {'gate', ...}: it may start when its limits let it; as `run`, and nothing was written
--   {'run', task, data, bytes of data, attempt, deliveries, cleanup, suspect, once, unknown fields, option, value, ...};
--     data is false where it is absent or too large; once is 1 where it may start only once; the options are those that a
--     node reads (service, replica, replicas, restart and backoff among them), and times that are none.
--     {'run', task, data} is the first start of a task of which all else is 0 or absent
-- A second run with the same fence answers `run`, `gate`, `probation` or `tail` again and changes nothing, but that a
-- replica of a service which reads its record anew notes which revision of that it uses.
local node, queue, first, limit, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local wish = ARGV[6]
local CAREFUL = math.max(math.min(limit - 1, 2), 1) -- from so many counted deaths on a task starts on probation
local CLASSES = {}
for line in string.gmatch(ARGV[7], '[^\n]+') do
  local class = {}
  for word in string.gmatch(line, '%S+') do
    if not class.name then class.name = word
    else
      local key, value = string.match(word, '^([%w_]+)=(.*)$')
      class[key or word] = value or true
    end
  end
  CLASSES[class.name] = class
end
local PLAIN = {}
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local instant = tonumber(now)
-- fences are microseconds of a server's clock: what is a day ahead of ours no server has given out
local latest = (tonumber(time[1]) + 86400) * 1e6
local ENDED = {SUCCESS = 1, ERROR = 1, EXCEPTION = 1, TIMEOUT = 1, EXPIRED = 1, SKIPPED = 1, DISCARDED = 1, LOST = 1}

-- Every field that a record may have; 2: an option that the node reads; a duration (3) and a time (4) that are read here
local FIELDS = {task = 1, data = 1, queue = 1, created = 1, state = 1, fence = 1, node = 1, at = 1, closed = 1, attempt = 1,
  started = 1, last_update = 1, ended = 1, output = 1, progress = 1, deliveries = 1, suspect = 1, due_used = 1, unknown = 1,
  control = 1, workflow = 2, round = 2, schedule = 1, title = 1, cleanup = 1, rescheduling = 1, result_ttl = 1, failure_ttl = 1, limits = 1,
  delay = 3, expires_in = 3, due = 4, expires = 4,
  timeout = 2, retries = 2, retry_delay = 2, retry_on = 2, no_retry_on = 2, kept = 2,
  service = 1, replica = 1, replicas = 1, restart = 1, backoff = 1, revision = 1, uses = 1,
  unique = 2, max_running = 2, concurrency_key = 2, max_running_per_key = 2, rate = 2, rate_key = 2}
FIELDS['local'] = 1
-- what the node wants to know of a replica
local OF_SERVICE = {
  'service', 'replica', 'replicas', 'restart', 'backoff'}
local STEADY = 60 -- seconds of a replica's run after which its next failure counts as the first one
local MOST_FIELDS = 64 -- of a record that is read whole
local LONGEST = 4096 -- bytes of an option that go to the node; `unique` may be a key of any length
local UNITS = {[''] = 1, s = 1, ms = 0.001, m = 60, h = 3600, d = 86400}

-- a time as the sorted set takes it, whatever a producer wrote
local function when(text)
  local n = tonumber(text or '')
  if not n or n ~= n then return '0' end
  return string.format('%.6f', math.max(math.min(n, 1e12), 0))
end

-- a number, which NaN is not; nil for anything else that a producer wrote
local function number(text)
  local n = text and tonumber(text)
  return n == n and n or nil
end

-- a duration such as `10` or `5m`, in seconds; nil for anything else
local function seconds(text)
  local digits, unit = string.match(text or '', '^%s*([%d.]+) ?(%a*)%s*$')
  return digits and UNITS[unit] and tonumber(digits) and tonumber(digits) * UNITS[unit]
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

-- text as JSON
local function quoted(text)
  return '"' .. string.gsub(text, '[%c"\\]', function(c) return string.format('\\u%04x', string.byte(c)) end) .. '"'
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

-- What else there is beside plain fields: options for the node, and the names of fields that nobody knows
local function note(more, name, kind, value)
  if not kind then
    local told = more.strange or ''
    if #told < 500 then more.strange = (told == '' and '' or told .. ' ') .. string.sub(name, 1, 80) end
  elseif kind == 2 or not (kind == 3 and seconds(value) or kind == 4 and number(value)) then
    more[#more + 1] = name
    more[#more + 1] = (name == 'unique' or #value <= LONGEST) and value or string.sub(value, 1, LONGEST)
  end
end

-- The fields of a record, and what else there is, nil for nothing. One with very many fields, or with much data, is
-- read field by field: then the unknown ones are not told.
local function read(key, size)
  local h, more = {}, nil
  if size <= most and redis.call('HLEN', key) <= MOST_FIELDS then
    local flat = redis.call('HGETALL', key)
    for i = 1, #flat, 2 do
      local name, value = flat[i], flat[i + 1]
      local kind = FIELDS[name]
      if kind then h[name] = value end
      if kind ~= 1 then
        more = more or {}
        note(more, name, kind, value)
      end
    end
    return h, more
  end
  for name, kind in pairs(FIELDS) do
    local value = (name ~= 'data' or size <= most) and name ~= 'output' and redis.call('HGET', key, name)
    if value then h[name] = value end
    if value and kind ~= 1 then
      more = more or {}
      note(more, name, kind, value)
    end
  end
  return h, more
end

-- what follows from the end of a run
local function tail(state, due, h, limits)
  if not limits and not h.workflow then return {'tail', state, due, h.cleanup or ''} end
  return {'tail', state, due, h.cleanup or '', limits or '', h.workflow or '', h.round or ''}
end

-- The same with what the node wants to know of a replica
local function with_service(h, more)
  more = more or {}
  for _, name in ipairs(OF_SERVICE) do
    if h[name] then
      more[#more + 1] = name
      more[#more + 1] = string.sub(h[name], 1, 256)
    end
  end
  return more
end

-- a replica reads its record: which revision of that it uses from now on
local function note_use(key, h)
  if h.service and h.revision and h.uses ~= h.revision then redis.call('HSET', key, 'uses', h.revision) end
end

-- did a restart follow a stop so shortly before that the message of that stop came only now?
local UNDER_WAY = 3 -- seconds
local function is_taken_back(control)
  local since = number(string.match(control or '', '^restart%a* ([%d.]+)$'))
  return since and math.abs(instant - since) < UNDER_WAY
end

-- did a replica run for long before it was handed back, or its node died? Then nothing counts against it
local function was_steady(h, died, now)
  local last = died and now or number(h.last_update) or 0
  return last - (number(h.started) or now) >= STEADY
end

local function answer(verdict, h, size, attempt, deliveries, suspect, once, more)
  local name = h.task and (#h.task <= 256 and h.task or string.sub(h.task, 1, 256)) or false
  local strange = more and more.strange
  if h.service then more = with_service(h, more) end
  if not (more and more[1]) and not strange and attempt == 1 and h.data and name and deliveries == 0 and suspect == 0
    and not once and not h.cleanup and verdict == 'run' then return {'run', name, h.data} end
  return {verdict, name, h.data or false, size, attempt, deliveries, h.cleanup or '', suspect, once and 1 or 0,
    strange or '', unpack(more or PLAIN)}
end

local function begin(key, fence, lost, early)
  local size = redis.pcall('HSTRLEN', key, 'data')
  if type(size) == 'table' then return {'wrong'} end
  local h, more = read(key, size)
  local class = h.task and CLASSES[h.task] or PLAIN
  local state, last, closed, at = h.state or 'WAIT', whole(h.fence, 16), h.closed, h.at
  if last > latest then last = 0 end
  if not h.state and not h.fence and not h.task and redis.call('EXISTS', key) == 0 then return {'missing'} end
  if h['local'] then return {'ended', state} end -- the record of a node's local task: nobody else may run it
  local f = tonumber(fence)
  local ours = last == f
  if last > f or (ours and (h.node ~= node or at ~= queue)) then return {'stale', h.fence} end
  local deliveries, suspect = whole(h.deliveries, 9), whole(h.suspect, 9)
  -- what the record says goes before what the class says; anything but `true` and `false` says nothing
  local once = not h.service and (h.rescheduling == 'false' or (h.rescheduling ~= 'true' and class.once))
  if ours then
    local waits = state == 'WAIT' and suspect >= CAREFUL
    if closed == fence then
      return waits and {'probation', suspect, now} or tail(state, when(h.due), h, h.limits)
    end
    note_use(key, h)
    return answer('run', h, size, math.max(whole(h.attempt, 9), 1), deliveries, suspect, once, more)
  end
  local steers = class.steers and last > 0
  local unfinished = lost ~= '0' and at == queue and closed ~= nil and closed == h.fence
  if ENDED[state] or state == 'STOPPED' then
    if unfinished then return tail(state, '', h, h.limits) end
    return {'ended', state}
  elseif state == 'HELD' then
    -- only what steers others begins again, once it has begun
    if not steers then return {'ended', state} end
  elseif state == 'RETRY' or state == 'SCHEDULED' then
    if h.control ~= 'stop' then -- else it would be obeyed only at the time for which the task is parked
      if unfinished then return tail(state, when(h.due), h, h.limits) end
      if early == '1' then return {'early'} end
    end
  elseif last > 0 and closed ~= h.fence and at and at ~= queue and is_queue(at) then return {'elsewhere', at} end
  local died, before, new, why = state == 'RUNNING', suspect, 'RUNNING', nil
  local attempt, due = whole(h.attempt, 9), h.due
  local made = number(h.created) or instant
  local expiry = number(h.expires)
  if not expiry and not h.service and (h.expires_in or class.expires_in) then
    expiry = made + (seconds(h.expires_in or class.expires_in) or math.huge)
  end
  if not due and state == 'WAIT' and not h.due_used and (h.delay or class.delay) then
    due = when(made + (seconds(h.delay or class.delay) or 0))
  end
  local limits, wish = h.limits, wish
  if wish == 'stop' and is_taken_back(h.control) then wish = '' end
  if wish == 'admitted' then limits = early
  elseif wish == 'defer' then
    early, limits = string.match(early, '^(%S*) ?(.*)$')
    if string.sub(early, 1, 1) == '+' then early = when(instant + (number(string.sub(early, 2)) or 0)) end
  end
  if limits == '' then limits = nil end
  if died and lost == '2' then suspect = suspect + 1 end
  if (h.control == 'stop' or wish == 'stop') and not steers then new = 'STOPPED'
  elseif died and once and last > 0 and closed ~= h.fence then
    new, why = 'LOST', 'its node died while it ran, and it may start only once (rescheduling is false)'
  elseif expiry and expiry <= instant and not steers then new, why = 'EXPIRED', 'expired before it began'
  elseif died and suspect >= limit then
    new = 'LOST'
    why = suspect .. ' deaths of its nodes in a row count against it (max_deliveries is ' .. limit .. ')'
  elseif state == 'WAIT' and not h.due_used and number(due) and number(due) > instant then new = 'SCHEDULED'
  elseif wish == 'skip' then new, why = 'SKIPPED', early
  elseif wish == 'defer' then
    due = early
    if died then attempt = math.max(attempt - 1, 0) end
    new = attempt > 0 and 'RETRY' or 'SCHEDULED'
  elseif wish == '' and (class.gate or h.unique or h.max_running or h.concurrency_key or h.rate) then
    return answer('gate', h, size, attempt, deliveries, suspect, once, more)
  elseif suspect >= CAREFUL and wish ~= 'granted' then new = 'WAIT'
  end
  -- a stop, or its time, is what ends a start whose node died: the others were ended by that death
  if new == 'STOPPED' or new == 'EXPIRED' then suspect = before elseif died then deliveries = deliveries + 1 end
  if new == 'RUNNING' and not died then attempt = attempt + 1 end
  if new == 'WAIT' and died then attempt = math.max(attempt - 1, 0) end -- it was neither ended by itself nor goes on
  redis.call('HSET', key, 'state', new, 'fence', fence, 'node', node, 'at', queue, 'last_update', now,
    'created', h.created or now, 'attempt', TEXT[attempt] or attempt,
    new == 'RUNNING' and 'started' or 'closed', new == 'RUNNING' and now or fence)
  if due ~= h.due then redis.call('HSET', key, 'due', due) end
  if steers and wish == 'stop' then redis.call('HSET', key, 'control', 'stop') end
  if h.due_used ~= '1' and (due or h.due_used) then redis.call('HSET', key, 'due_used', '1') end
  if h.deliveries or deliveries > 0 then redis.call('HSET', key, 'deliveries', deliveries) end
  if suspect ~= before then redis.call('HSET', key, 'suspect', suspect) end
  if limits and limits ~= h.limits then redis.call('HSET', key, 'limits', limits)
  elseif h.limits and not limits then redis.call('HDEL', key, 'limits') end
  if new == 'WAIT' then
    redis.call('PERSIST', key)
    if died then redis.call('PUBLISH', key, '{"event":"wait","data":"on probation: ' .. suspect .. ' deaths of its nodes"}') end
    return {'probation', suspect, now}
  end
  if new ~= 'RUNNING' then
    if why then redis.call('HSET', key, 'output', why)
    elseif new == 'STOPPED' and h.output then redis.call('HSET', key, 'output', '') end -- of an attempt before
    if ENDED[new] then redis.call('HSET', key, 'ended', now) end
    if new ~= 'SCHEDULED' and new ~= 'RETRY' then redis.call('HDEL', key, 'control') end
    local data = why and quoted(why) or 'null'
    if new ~= 'RETRY' then -- that it failed was told when it did
      redis.call('PUBLISH', key, '{"event":"' .. string.lower(new) .. '","data":' .. data .. '}')
    end
    return tail(new, when(due), h, limits)
  end
  -- in the record, so that a node that does not know the class obeys it too
  if once and h.rescheduling ~= 'false' then redis.call('HSET', key, 'rescheduling', 'false') end
  if h.attempt then redis.call('HDEL', key, 'output', 'ended') end
  if h.backoff and (died or state == 'WAIT') and was_steady(h, died, instant) then
    redis.call('HDEL', key, 'backoff')
    h.backoff = nil
  end
  note_use(key, h)
  if h.control and string.sub(h.control, 1, 8) == 'restart ' then
    redis.call('HSET', key, 'control', 'restarted' .. string.sub(h.control, 8))
  end
  redis.call('PERSIST', key)
  redis.call('PUBLISH', key, running(attempt))
  return answer('run', h, size, attempt, deliveries, suspect, once, more)
end

local out = {}
for i, key in ipairs(KEYS) do
  local a = 3 * i + 5
  out[i] = begin(key, ARGV[a], ARGV[a + 1], ARGV[a + 2])
end
return out
