-- places: some give up what they have of a limit, some ask for it, and who is next in line is let in.
-- KEYS  1 held, 2 line, 3 meter
-- ARGV  1 how many places there are, or how many starts in a period, 2 the period (microseconds; 0: places),
--       3 how many leave, then for each of those: member, fence; then for each that asks: member, fence, what for
--       ('hold': until it leaves; 'spend': to start now, which a rate need not be told the end of)
-- Returns {now (epoch seconds), how many stand in line, microseconds until another look lets somebody in or -1,
--       how many others were let in, each of those, then for each that asks: -1 where it is in, else its place in line}
-- Whoever leaves gives up what it has under a fence up to the given one: a newer run of the same id keeps it.
-- A second run changes nothing more, but that it may spend one start more.
local MOST = 500 -- let in by one call: the server must not be held up
local most, period, leaving = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1e6 + tonumber(time[2])

-- of a rate: the time until which the starts that were given out would last, one by one. What is held is not spent yet:
-- so much less is saved up meanwhile, and it counts from the moment in which it is spent
local interval = period / most
local spent = now
if period > 0 then
  spent = math.max(tonumber(redis.call('GET', KEYS[3]) or '0'), now + redis.call('ZCARD', KEYS[1]) * interval)
end

for i = 4, 3 + 2 * leaving, 2 do
  for _, key in ipairs({KEYS[1], KEYS[2]}) do
    local fence = redis.call('ZSCORE', key, ARGV[i])
    if fence and tonumber(fence) <= tonumber(ARGV[i + 1]) then
      redis.call('ZREM', key, ARGV[i])
      if key == KEYS[1] and period > 0 then spent = math.max(spent - interval, now) end -- not used
    end
  end
end

local asks, spends, inside = {}, {}, {}
for i = 4 + 2 * leaving, #ARGV, 3 do
  local member, fence = ARGV[i], ARGV[i + 1]
  asks[#asks + 1] = member
  spends[member] = ARGV[i + 2] == 'spend'
  if redis.call('ZSCORE', KEYS[1], member) then
    inside[member] = true
    if spends[member] then redis.call('ZREM', KEYS[1], member)
    else redis.call('ZADD', KEYS[1], 'GT', fence, member) end
    redis.call('ZREM', KEYS[2], member)
  else
    redis.call('ZADD', KEYS[2], 'NX', fence, member) -- whoever asks again keeps its turn
  end
end

local free = most - redis.call('ZCARD', KEYS[1])
if period > 0 then free = math.floor((period - (spent - now)) / interval + 1e-6) end

local granted = {}
if free > 0 then
  local rows = redis.call('ZRANGE', KEYS[2], 0, math.min(free, MOST) - 1, 'WITHSCORES')
  for i = 1, #rows, 2 do
    local member = rows[i]
    redis.call('ZREM', KEYS[2], member)
    if not spends[member] then redis.call('ZADD', KEYS[1], rows[i + 1], member) end
    if spends[member] == nil then granted[#granted + 1] = member else inside[member] = true end
  end
  spent = spent + interval * #rows / 2
  free = free - #rows / 2
end
if period > 0 and spent > now then
  redis.call('SET', KEYS[3], string.format('%.3f', spent), 'PX', math.ceil((spent - now) / 1000) + 1000)
end

local length, wait = redis.call('ZCARD', KEYS[2]), -1
if length > 0 then
  if free > 0 then wait = 0
  elseif period > 0 and redis.call('ZCARD', KEYS[1]) < most then
    wait = math.max(math.ceil(spent + interval - period - now), 0)
  end
end

local out = {string.format('%.6f', now / 1e6), length, wait, #granted}
for _, member in ipairs(granted) do out[#out + 1] = member end
for _, member in ipairs(asks) do
  out[#out + 1] = inside[member] and -1 or redis.call('ZRANK', KEYS[2], member) or -1
end
return out
