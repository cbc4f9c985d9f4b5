-- reap: put the claims of a dead node back to the head of the queue, a chunk at a time.
-- KEYS  1 q, 2 claims, 3 of:<node>, 4 nodes, 5 inbox:<node>, 6 gone
-- ARGV  1 node, 2 the sequence that was seen unchanged, 3 chunk,
--       4 blame: '1' where the death counts against one id alone, 5 that id (empty: against none)
-- Returns -1: no such node; -2: it has beaten since; 1: call again; 0: done. Two Monitors may interleave: what the
-- first one said stands in `nodes`, in the field `-<node>`, until it is done.
-- a key of another type must refuse the whole move, before its first write: half a move would lose ids
redis.call('LLEN', KEYS[1])
local field = '-' .. ARGV[1]
local mark = redis.call('HGET', KEYS[4], field)
if not mark then
  local sequence = redis.call('HGET', KEYS[4], ARGV[1])
  if not sequence then return -1 end
  if sequence ~= ARGV[2] then return -2 end
  mark = ARGV[4] == '1' and sequence .. ' ' .. ARGV[5] or sequence
  redis.call('HSET', KEYS[4], field, mark)
end
redis.call('HDEL', KEYS[4], ARGV[1]) -- from now on it neither beats nor claims
local blamed = string.match(mark, '^%d+ (.*)$')
local time = redis.call('TIME')
local now = tonumber(time[1])
-- a death counts against the runs that it may be due to: the one that was blamed, else those that began a short
-- while ago. A fence is the microsecond of its claim, by this server's clock
local young = now * 1e6 + tonumber(time[2]) - 60 * 1e6

local chunk = redis.call('HSCAN', KEYS[3], '0', 'COUNT', ARGV[3])[2]
for i = 1, #chunk, 2 do
  local id = chunk[i]
  local fence, how = string.match(chunk[i + 1], '^(%d+) %d (%a+)')
  if redis.call('HGET', KEYS[2], id) == ARGV[1] .. ' ' .. fence then
    local counts
    if blamed then counts = id == blamed else counts = tonumber(fence) > young end
    redis.call('HSET', KEYS[2], id, '-lost ' .. how .. (counts and ' young' or ''))
    redis.call('RPUSH', KEYS[1], id)
  end
  redis.call('HDEL', KEYS[3], id)
end
for _ = 1, tonumber(ARGV[3]) do
  local id = redis.call('RPOP', KEYS[5])
  if not id then break end
  redis.call('RPUSH', KEYS[1], id)
end
if redis.call('EXISTS', KEYS[3]) == 1 or redis.call('EXISTS', KEYS[5]) == 1 then return 1 end
redis.call('HDEL', KEYS[4], field)
redis.call('ZADD', KEYS[6], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - 3600)
return 0
