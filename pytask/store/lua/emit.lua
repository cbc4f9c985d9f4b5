-- emit: publish what running tasks have to say, where they still own their records.
-- KEYS  task, ...   (all in one slot on a cluster; one may stand several times)
-- ARGV  1 node, 2 key of the queue, then for each: fence, event (JSON; '' asks without publishing)
-- Returns for each: 'fenced', 'stop' where the record's `control` says so, or ''. A second run publishes a second time.
local out, verdicts = {}, {}
for i, key in ipairs(KEYS) do
  local fence, event = ARGV[2 * i + 1], ARGV[2 * i + 2]
  local verdict = verdicts[key .. fence]
  if not verdict then
    local h = redis.pcall('HMGET', key, 'fence', 'node', 'control', 'closed', 'at')
    if h.err or h[1] ~= fence or h[2] ~= ARGV[1] or h[4] == fence or h[5] ~= ARGV[2] then verdict = 'fenced'
    else verdict = h[3] == 'stop' and 'stop' or '' end
    verdicts[key .. fence] = verdict
  end
  if verdict ~= 'fenced' and event ~= '' then redis.call('PUBLISH', key, event) end
  out[i] = verdict
end
return out
