-- create: make the records of tasks with ids that were chosen beforehand, where there are none yet.
-- KEYS  task, ...   (all in one slot on a cluster)
-- ARGV  1 how many words each record has, then for each so many: field, value, ... (an empty field and its value are left out)
-- Returns for each: 1 where it was made, 0 where there is a key already. A second run changes nothing.
local width, out = tonumber(ARGV[1]), {}
for i, key in ipairs(KEYS) do
  out[i] = 0
  if redis.call('EXISTS', key) == 0 then
    local words = {}
    for n = (i - 1) * width + 2, i * width, 2 do
      if ARGV[n] ~= '' then
        words[#words + 1] = ARGV[n]
        words[#words + 1] = ARGV[n + 1]
      end
    end
    redis.call('HSET', key, unpack(words))
    out[i] = 1
  end
end
return out
