-- lay_out: write down what a workflow consists of, before any of its tasks is made.
-- KEYS  1 workflow, 2 tasks, 3 gates, 4 open
-- ARGV  1 how many tasks, 2 how many gates, then for each task: name, row; for each gate: number, row, how many tasks it
--       waits for; then fields and values of the workflow itself, with the last call alone (`laid`: the fence of the run)
-- Returns 1, or 0 where the whole is there already: then nothing is changed. A second run before that writes the same again.
if redis.call('HEXISTS', KEYS[1], 'laid') == 1 then return 0 end
local tasks, gates, n = tonumber(ARGV[1]), tonumber(ARGV[2]), 3
if tasks > 0 then redis.call('HSET', KEYS[2], unpack(ARGV, n, n + 2 * tasks - 1)) end
n = n + 2 * tasks
for i = n, n + 3 * gates - 1, 3 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 2] .. ' 0')
end
n = n + 3 * gates
if ARGV[n] then redis.call('HSET', KEYS[1], 'laid', '0', unpack(ARGV, n)) end
return 1
