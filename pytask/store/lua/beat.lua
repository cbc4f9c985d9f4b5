-- beat: a node says that it lives, in several queues at once; a full beat also tells how its claims stand.
-- KEYS  1 nodes, 2 of:<node>, 3 control, 4 q, ...   (these four for each queue, or `nodes` alone where the beat is not
--       full: while a slot moves, a script with one key is all that works; all in one slot on a cluster)
-- ARGV  1 node, 2 sequence (grows with each beat, kept by the node), 3 '1': a full beat
-- Returns for each queue {-1} where the node is absent or being reaped, {-2} where `nodes` is no hash, {} after a
-- short beat, {its claims, ids that wait, id of a claim that was told to stop, ...} after a full one.
-- A second run does the same.
local function learn(i)
  local claims, waiting = redis.call('HLEN', KEYS[i + 1]), redis.pcall('LLEN', KEYS[i + 3])
  local answer = {claims, type(waiting) == 'table' and 0 or waiting}
  if claims == 0 then return answer end
  local told = redis.call('HGETALL', KEYS[i + 2])
  for n = 1, #told, 2 do
    local mine = redis.call('HGET', KEYS[i + 1], told[n])
    if mine and string.match(mine, '^%d+') == told[n + 1] then answer[#answer + 1] = told[n] end
  end
  return answer
end

local out = {}
for i = 1, #KEYS, ARGV[3] == '1' and 4 or 1 do
  -- one command a queue: what HSET returns tells whether the node stood there. Thousands of idle beats count
  local new = redis.pcall('HSET', KEYS[i], ARGV[1], ARGV[2])
  local answer = {}
  if type(new) == 'table' then
    if not string.find(new.err, 'WRONGTYPE', 1, true) then return new end
    answer = {-2}
  elseif new == 1 then
    redis.call('HDEL', KEYS[i], ARGV[1])
    answer = {-1}
  elseif ARGV[3] == '1' then answer = learn(i) end
  out[#out + 1] = answer
end
return out
