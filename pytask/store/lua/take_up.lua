-- take_up: note what the definition of a service asks for, before anything of it is done.
-- KEYS  1 applied
-- ARGV  1 digest of what replicas are started anew for, 2 how many replicas
-- Returns {revision, content, made, replicas, rolling}: the revision of the records, the one since which their content is as
-- it is (both in microseconds of the server's clock), how many replicas may have been made at any time (before
-- this call), how many there were to be last ('' for a new service), and 1 where they are to be started anew.
-- A second run answers the same, but for what it has noted of how many may have been made.
local h = redis.call('HMGET', KEYS[1], 'revision', 'content', 'digest', 'wanted', 'made', 'replicas', 'rolling')
local revision, content, made, rolling = h[1], h[2], tonumber(h[5] or '0'), h[7]
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
if h[3] ~= ARGV[1] or h[4] ~= ARGV[2] or not revision then
  revision = now
  if tonumber(h[1] or '0') >= tonumber(now) then revision = string.format('%.0f', tonumber(h[1]) + 1) end
  redis.call('HSET', KEYS[1], 'revision', revision, 'wanted', ARGV[2])
end
if h[3] ~= ARGV[1] then
  content = revision
  if h[3] then rolling = '1' end
  redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'content', content)
  if rolling then redis.call('HSET', KEYS[1], 'rolling', rolling) end
end
if tonumber(ARGV[2]) > made then redis.call('HSET', KEYS[1], 'made', ARGV[2]) end
return {revision, content, tostring(made), h[6] or '', rolling or ''}
