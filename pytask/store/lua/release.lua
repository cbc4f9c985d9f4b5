-- release: give claims up, one way or another.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 again, 5 due, 6 ended, 7 counts, 8 dead, 9 control
-- ARGV  1 node, 2 how many ended ids to keep (0: none), 3 how many dead ids to keep, then for each: id, fence, mode, state
--       (ids differ within one call; mode: end, none, early, head, dead; state: counted where mode is end)
-- Returns how many claims were given up. Guard: of:<node>[id] begins with the fence; a second run changes nothing.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
redis.call('LLEN', KEYS[8])
local node, ids = ARGV[1], {}
for i = 4, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local mine = redis.call('HMGET', KEYS[3], unpack(ids))
local owners = redis.call('HMGET', KEYS[2], unpack(ids))
local again = redis.call('EXISTS', KEYS[4]) == 1 and redis.call('SMISMEMBER', KEYS[4], unpack(ids)) or {}
local gone, owned, marks, due, ended, dead, head, tail, counts = {}, {}, {}, {}, {}, {}, {}, {}, {}
local now = redis.call('TIME')
now = now[1] .. '.' .. string.format('%06d', now[2])
for i, id in ipairs(ids) do
  local fence, mode, state = ARGV[4 * i + 1], ARGV[4 * i + 2], ARGV[4 * i + 3]
  if mine[i] and string.sub(mine[i], 1, #fence + 1) == fence .. ' ' then
    gone[#gone + 1] = id
    if owners[i] == node .. ' ' .. fence then
      -- what goes back unbegun still follows a dead node's claim: its record may lack its tail
      local lost, how = '0', nil
      if mode == 'head' then lost, how = string.match(mine[i], '^%d+ (%d) (%a+)') end
      if lost ~= '0' then
        marks[#marks + 1] = id
        marks[#marks + 1] = '-lost ' .. how .. (lost == '2' and ' young' or '')
      else owned[#owned + 1] = id end
    end
    if mode ~= 'early' then due[#due + 1] = id end
    if mode == 'end' then
      ended[#ended + 1] = now
      ended[#ended + 1] = id
      counts[state] = (counts[state] or 0) + 1
    elseif mode == 'dead' then dead[#dead + 1] = id end
    if mode == 'head' then head[#head + 1] = id
    elseif again[i] == 1 then tail[#tail + 1] = id end
    if again[i] == 1 then redis.call('SREM', KEYS[4], id) end
  end
end
if #gone == 0 then return 0 end
redis.call('HDEL', KEYS[3], unpack(gone))
if #owned > 0 then redis.call('HDEL', KEYS[2], unpack(owned)) end
if #marks > 0 then redis.call('HSET', KEYS[2], unpack(marks)) end
if #due > 0 and redis.call('EXISTS', KEYS[5]) == 1 then redis.call('ZREM', KEYS[5], unpack(due)) end
if redis.call('EXISTS', KEYS[9]) == 1 then redis.call('HDEL', KEYS[9], unpack(gone)) end
if #ended > 0 then
  local over = tonumber(ARGV[2])
  if over > 0 then redis.call('ZADD', KEYS[6], unpack(ended)) end
  over = redis.call('ZCARD', KEYS[6]) - over
  if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[6], 0, over - 1) end
  for state, n in pairs(counts) do redis.call('HINCRBY', KEYS[7], state, n) end
end
if #dead > 0 then
  redis.call('LPUSH', KEYS[8], unpack(dead))
  redis.call('LTRIM', KEYS[8], 0, tonumber(ARGV[3]) - 1)
end
if #head > 0 then redis.call('RPUSH', KEYS[1], unpack(head)) end
if #tail > 0 then redis.call('LPUSH', KEYS[1], unpack(tail)) end
return #gone
