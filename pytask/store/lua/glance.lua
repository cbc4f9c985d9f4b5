-- glance: what limits and locks want to know of the records of those who have or want them.
-- KEYS  task, ...   (all in one slot on a cluster)
-- Returns for each: '' where there is none, or no hash; else {state or '', at, fence, created, queue, limits}, '' for
-- what is absent. Changes nothing.
local out = {}
for i, key in ipairs(KEYS) do
  local h = redis.pcall('HMGET', key, 'state', 'at', 'fence', 'created', 'queue', 'limits', 'task')
  -- what must not be read must not be taken for a record that is gone
  if h.err and not string.find(h.err, 'WRONGTYPE', 1, true) then return h end
  if h.err or not (h[1] or h[3] or h[7]) then out[i] = ''
  else
    local row = {}
    for j = 1, 6 do row[j] = string.sub(h[j] or '', 1, 2000) end
    out[i] = row
  end
end
return out
