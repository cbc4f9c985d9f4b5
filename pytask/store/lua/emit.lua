-- emit: publish what running tasks have to say, where they still own their records.
-- KEYS  task, events, ...   (its stream behind each task; all in one slot on a cluster; one may stand several times)
-- ARGV  1 node, 2 key of the queue, 3 how many events a stream keeps, 4 how long (ms) it stays without a new one, then for
--       each: fence, event (JSON; '' asks without publishing), how: '' publishes it, 'keep' puts it into the stream as well,
--       'progress' writes what it tells into the record's field `progress`
-- Returns for each: 'fenced', 'stop' where the record's `control` says so, 'restart' where it says that this run was stopped
-- and restarted since it began, or ''. A second run publishes a second time.
local out, verdicts, kept = {}, {}, {}
local keep, ttl = ARGV[3], ARGV[4]
local HEAD = #'{"event":"progress","data":'

-- put an event into the stream; returns it with its place there
local function put(key, stream, event)
  local id = redis.pcall('XADD', stream, 'MAXLEN', keep, '*', 'event', event)
  if type(id) ~= 'string' then return event end -- a key of another type stands there
  if not kept[stream] then
    kept[stream] = true
    redis.call('PEXPIRE', stream, ttl)
    redis.call('HSET', key, 'kept', '1')
  end
  return string.sub(event, 1, -2) .. ',"id":"' .. id .. '"}'
end

for i = 1, #KEYS, 2 do
  local n = (i - 1) / 2
  local key, fence, event, how = KEYS[i], ARGV[3 * n + 5], ARGV[3 * n + 6], ARGV[3 * n + 7]
  local verdict = verdicts[key .. fence]
  if not verdict then
    local h = redis.pcall('HMGET', key, 'fence', 'node', 'control', 'closed', 'at')
    if h.err or h[1] ~= fence or h[2] ~= ARGV[1] or h[4] == fence or h[5] ~= ARGV[2] then verdict = 'fenced'
    elseif h[3] == 'stop' then verdict = 'stop'
    else verdict = h[3] and string.sub(h[3], 1, 8) == 'restart ' and 'restart' or '' end
    verdicts[key .. fence] = verdict
  end
  if verdict ~= 'fenced' and event ~= '' then
    if how == 'keep' and keep ~= '0' then event = put(key, KEYS[i + 1], event)
    elseif how == 'progress' then redis.call('HSET', key, 'progress', string.sub(event, HEAD + 1, -2)) end
    redis.call('PUBLISH', key, event)
  end
  out[n + 1] = verdict
end
return out
