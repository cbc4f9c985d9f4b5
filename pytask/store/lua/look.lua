-- look: what the sweep wants to know of records.
-- KEYS  task, ...   (all in one slot on a cluster)
-- Returns for each: '' where there is nothing to sweep: no record of a task (no hash, no field `task`), one of a node's
-- local task, one that ended, is STOPPED or HELD; else {state or '', fence, at, queue, due, control}, '' for what is
-- absent, 300 bytes of each. Changes nothing.
local OPEN = {WAIT = 1, SCHEDULED = 1, RETRY = 1, RUNNING = 1}
local out = {}
for i, key in ipairs(KEYS) do
  local h = redis.pcall('HMGET', key, 'state', 'fence', 'at', 'queue', 'due', 'control', 'task', 'local')
  if h.err or not h[7] or h[8] or (h[1] and not OPEN[h[1]]) then
    out[i] = ''
  else
    local row = {}
    for j = 1, 6 do row[j] = string.sub(h[j] or '', 1, 300) end
    out[i] = row
  end
end
return out
