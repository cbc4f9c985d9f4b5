-- rescue: put ids back that are in no structure of their queue any more; the sweep's.
-- KEYS  1 q, 2 claims, 3 due, 4 nodes, 5 of:<node>
--       (the last one only where claims of a node are put back that is gone without a trace)
-- ARGV  1 how many ids at each end of the queue are looked at, then for each: id, due (epoch seconds until which it
--       waits; '' for none)
-- Returns for each: 'here' where a node owns it, it is parked, stands at an end of the queue, or is not in of:<node> any
-- more; else 'parked' or 'pushed'. What was in of:<node> is taken out of it.
-- A second run answers 'here', or pushes an id a second time, which starts nothing; one from of:<node> only once, since
-- it is marked as lost, and what it ended as is told again.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

-- a node that is being reaped is known too: what it owned is being put back
local function is_known(node)
  return redis.call('HEXISTS', KEYS[4], node) == 1 or redis.call('HEXISTS', KEYS[4], '-' .. node) == 1
end

local function waits(id)
  return redis.call('LPOS', KEYS[1], id, 'MAXLEN', ARGV[1])
    or redis.call('LPOS', KEYS[1], id, 'RANK', -1, 'MAXLEN', ARGV[1])
end

local function rescue(id, due)
  if KEYS[5] and redis.call('HDEL', KEYS[5], id) == 0 then return 'here' end
  local claim = redis.call('HGET', KEYS[2], id)
  if claim and string.sub(claim, 1, 1) ~= '-' then
    local owner = string.match(claim, '^(%S+) %d+$')
    if owner and is_known(owner) then return 'here' end
    -- in the queue or not: whoever took it from there would find it owned
    redis.call('HSET', KEYS[2], id, '-lost push')
    if not waits(id) then redis.call('LPUSH', KEYS[1], id) end
    return 'pushed'
  end
  if waits(id) then return 'here' end
  if not claim then
    if redis.call('ZSCORE', KEYS[3], id) then return 'here' end
    local when = tonumber(due)
    if when and when > now then
      redis.call('ZADD', KEYS[3], string.format('%.6f', math.min(when, 1e12)), id)
      return 'parked'
    end
    redis.call('HSET', KEYS[2], id, KEYS[5] and '-lost push' or '-back')
  end -- a mark stays: promote passes over what has one, so that a parked id is pushed, too
  redis.call('LPUSH', KEYS[1], id)
  return 'pushed'
end

local out = {}
for i = 2, #ARGV, 2 do out[#out + 1] = rescue(ARGV[i], ARGV[i + 1]) end
return out
