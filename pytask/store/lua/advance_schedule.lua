-- advance_schedule: win the fires of a schedule that are due, and note which one comes next.
-- KEYS  1 schedule
-- ARGV  1 `next` and 2 `last` as they were read ('' for none), 3 the new `next` ('' for none), 4 what it was worked out from,
--       5 what is wrong with the schedule ('' for nothing), 6 `paused` as it was read, then the fire times that are won, the
--       oldest first
-- Returns 1, or 0 where another node was faster, fires are won that have not been started, the schedule is gone, or it was
-- paused or resumed meanwhile. A second run changes nothing, and answers 0 where the first one has changed either time.
local h = redis.call('HMGET', KEYS[1], 'next', 'last', 'firing', 'paused')
if (h[1] or '') ~= ARGV[1] or (h[2] or '') ~= ARGV[2] or h[3] or (h[4] or '') ~= ARGV[6] then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local gone = {}
local function put(field, value)
  if value == '' then
    gone[#gone + 1] = field
  else
    redis.call('HSET', KEYS[1], field, value)
  end
end
put('next', ARGV[3])
put('spec', ARGV[4])
put('error', ARGV[5])
if #ARGV > 6 then
  put('last', ARGV[#ARGV])
  put('firing', table.concat(ARGV, ' ', 7))
end
if #gone > 0 then redis.call('HDEL', KEYS[1], unpack(gone)) end
return 1
