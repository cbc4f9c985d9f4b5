-- step: note in a workflow that tasks of it have ended, and find out what may go on now.
-- KEYS  1 workflow, 2 tasks, 3 open, 4 ready
-- ARGV  1 channel of the workflow's events, then for each task: name, state; behind the state, with a space, the round of a
--       task whose record names one
-- Returns {'gone'} where there is no such workflow, else {'ok' | 'wake', its queue}: `wake` where it is to go on.
-- A row of `tasks`: state, when, allow_failure (0 or 1), the gate it waits for, the gates that wait for it. A task is noted
-- once, and in its own round alone (what is late from before a restart is passed over): a second run changes nothing, and says `wake` as long as there is something to do.
local head = redis.pcall('HMGET', KEYS[1], 'laid', 'queue', 'done', 'total', 'failed', 'told', 'round')
if head.err or not head[1] then return {'gone'} end
-- a key of another type, which somebody else wrote: the workflow cannot go on, its tasks can
local known, left, opened = redis.pcall('HLEN', KEYS[2]), redis.pcall('HLEN', KEYS[3]), redis.pcall('LLEN', KEYS[4])
if type(known) == 'table' or type(left) == 'table' or type(opened) == 'table' then return {'gone'} end
local FAILED = {ERROR = 1, EXCEPTION = 1, TIMEOUT = 1, EXPIRED = 1, LOST = 1, STOPPED = 1}
local OVER = {SUCCESS = 1, SKIPPED = 1, DISCARDED = 1}
local done, total, failed = tonumber(head[3]) or 0, tonumber(head[4]) or 0, tonumber(head[5]) or 0
local before, gates, counts, ready = done, {}, {}, {}

-- how many tasks a gate waits for still, and whether one before it has failed
local function gate(number)
  local found = gates[number]
  if not found then
    local left, bad = string.match(redis.call('HGET', KEYS[3], number) or '0 0', '^(%d+) (%d)$')
    found = {left = tonumber(left), bad = bad == '1'}
    gates[number] = found
  end
  return found
end

for i = 2, #ARGV, 2 do
  local name, state, round = ARGV[i], string.match(ARGV[i + 1], '^(%S*) ?(%S*)$')
  local row = redis.call('HGET', KEYS[2], name)
  local was, rest, allowed, own, feeds = string.match(row or '', '^(%S+)( %S+ (%d) (%S+) ?(.*))$')
  if was and round == (head[7] or '') and not FAILED[was] and not OVER[was] and (FAILED[state] or OVER[state]) then
    local bad = FAILED[state] and allowed == '0'
    if bad then failed = failed + 1 end
    bad = bad or (own ~= '-' and gate(own).bad)
    done = done + 1
    counts[state] = (counts[state] or 0) + 1
    redis.call('HSET', KEYS[2], name, state .. rest)
    for number in string.gmatch(feeds, '%d+') do
      local next = gate(number)
      next.left, next.bad, next.new = next.left - 1, next.bad or bad, true
      if next.left == 0 then ready[#ready + 1] = number end
    end
  end
end
if done > before then
  local time = redis.call('TIME')
  local now = time[1] .. '.' .. string.format('%06d', time[2])
  -- one by one: a task may open more gates than one call takes words
  for number, each in pairs(gates) do
    if each.new then redis.call('HSET', KEYS[3], number, each.left .. ' ' .. (each.bad and 1 or 0)) end
  end
  for _, number in ipairs(ready) do redis.call('RPUSH', KEYS[4], number) end
  for state, count in pairs(counts) do redis.call('HINCRBY', KEYS[1], state, count) end
  redis.call('HSET', KEYS[1], 'done', done, 'failed', failed, 'touched', now)
  -- how far it is: ten times a second at most, and at its end
  if done == total or tonumber(now) - (tonumber(head[6]) or 0) >= 0.1 then
    redis.call('HSET', KEYS[1], 'told', now)
    redis.call('PUBLISH', ARGV[1], '{"event":"progress","data":{"done":' .. done .. ',"total":' .. total
      .. ',"failed":' .. failed .. '}}')
  end
end
local wake
if done > before then wake = #ready > 0 or done == total
else wake = done == total or opened > 0 end
return {wake and 'wake' or 'ok', head[2] or ''}
