-- claim: take waiting ids off the queue for one node, giving each a fence.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 nodes, 5 fence, 6 again, 7 due, 8 inbox:<node>, 9 paused
-- ARGV  1 node, 2 how many at most (1 to 500)
-- Returns {'gone'} where the node is absent or being reaped, {'paused'} where nothing may start (the inbox is back in the
-- queue then), else {'ok', id, fence, lost, how, early, ...}.
-- lost: 1 where the claim follows a reaped one, 2 where that death counts against the task.
-- A second run takes more ids: after a lost reply read `of:<node>` instead (adoption).
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then return {'gone'} end
if redis.call('EXISTS', KEYS[9]) == 1 then
  while redis.call('LMOVE', KEYS[8], KEYS[1], 'RIGHT', 'RIGHT') do end
  return {'paused'}
end
local out = {'ok'}
local waiting = redis.call('LLEN', KEYS[8]) + redis.call('LLEN', KEYS[1])
if waiting == 0 then return out end
local share = math.ceil(waiting / redis.call('HLEN', KEYS[4]))
local left = math.min(tonumber(ARGV[2]), share)
local pops = 4 * left
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1e6 + tonumber(time[2])
local fence = math.max(tonumber(redis.call('GET', KEYS[5]) or '0') + 1, now)
local high, low = '', 0 -- the fence as text, in two parts: formatting it whole costs four times as much

local function split()
  low = fence % 1e6
  high = string.format('%.0f', (fence - low) / 1e6)
end
split()

local parked = redis.call('EXISTS', KEYS[7]) == 1

-- A value of more than 64 bytes, overwritten by the same HSET, makes a hash table of claims and of:<node>. Up to 512
-- claims the server would keep them as lists, and search these from end to end for each id.
local LONG = string.rep('-', 65)

-- ids popped together: mine now, or noted in `again` where somebody owns them
local function own(ids)
  local marks = redis.call('HMGET', KEYS[2], unpack(ids))
  local dues = parked and redis.call('ZMSCORE', KEYS[7], unpack(ids)) or {}
  local claims, mine, again, seen = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    local mark = marks[i]
    if seen[id] or (mark and string.sub(mark, 1, 1) ~= '-') then
      again[#again + 1] = id
    else
      local lost, how, early = '0', 'push', '0'
      if mark == '-back' then how = 'back'
      elseif mark then
        local before, young = string.match(mark, '^%-lost (%a+)( ?%a*)$')
        lost, how = young == ' young' and '2' or '1', before or 'push'
      end
      if dues[i] and tonumber(dues[i]) * 1e6 > now then early = '1' end
      local text = high .. string.format('%06d', low)
      fence, low = fence + 1, low + 1
      if low >= 1e6 then split() end
      seen[id] = true
      if #claims == 0 then claims, mine = {id, LONG}, {id, LONG} end
      claims[#claims + 1] = id
      claims[#claims + 1] = ARGV[1] .. ' ' .. text
      mine[#mine + 1] = id
      mine[#mine + 1] = text .. ' ' .. lost .. ' ' .. how .. ' ' .. early
      local n = #out
      out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = id, text, lost, how, early
      left = left - 1
    end
  end
  if #again > 0 then redis.call('SADD', KEYS[6], unpack(again)) end
  if #claims > 0 then
    redis.call('HSET', KEYS[2], unpack(claims))
    redis.call('HSET', KEYS[3], unpack(mine))
    redis.call('SET', KEYS[5], string.format('%.0f', fence - 1))
  end
end

for _, list in ipairs({KEYS[8], KEYS[1]}) do
  while left > 0 and pops > 0 do
    local ids = redis.call('RPOP', list, math.min(left, pops))
    if not ids or #ids == 0 then break end
    pops = pops - #ids
    own(ids)
  end
end
return out
