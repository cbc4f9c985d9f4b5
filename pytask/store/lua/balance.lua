-- balance: tell how many replicas of services a node runs in a queue; find the node that has the fewest.
-- KEYS  1 nodes, 2 replicas, 3 paused, 4 inbox:<node>
-- ARGV  1 node, 2 how many replicas it runs ('': it leaves), 3 for how many more tasks it has room, 4 '1': it would give one away
-- Returns {how many ids its inbox holds, the node that has the fewest and room for more, or '', how many that one has}:
-- a node is named where it has at least two fewer and nothing keeps it from starting one. Then both are noted as if
-- the replica had moved already, if ARGV 4 lets it.
-- A second run names another node, or none.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 or ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  return {0, '', 0}
end
local mine, least, room, target = tonumber(ARGV[2]), nil, 0, ''
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
local inbox = redis.call('LLEN', KEYS[4])
local rows = redis.call('HGETALL', KEYS[2])
if #rows <= 2 or redis.call('EXISTS', KEYS[3]) == 1 then return {inbox, '', 0} end
for i = 1, #rows, 2 do
  local node = rows[i]
  local count, free = string.match(rows[i + 1], '^(%d+) (%d+)$')
  if node ~= ARGV[1] then
    if not count or redis.call('HEXISTS', KEYS[1], node) == 0 then redis.call('HDEL', KEYS[2], node)
    elseif tonumber(free) > 0 and (not least or tonumber(count) < least) then
      least, room, target = tonumber(count), tonumber(free), node
    end
  end
end
if not least or mine - least < 2 then return {inbox, '', 0} end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%d %s', mine - 1, ARGV[3]), target,
    string.format('%d %d', least + 1, room - 1))
end
return {inbox, target, least}
