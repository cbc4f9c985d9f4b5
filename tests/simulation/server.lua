-- A small Redis: the commands that pytask sends, on tables, in the semantics of Redis 7 (RESP2).
--
-- Every slot has a database of its own, as if each lay on a server of its own, with a clock of its own. A script
-- may touch nothing but its KEYS, and gives `redis.call` nothing but strings and numbers: both are checked here.
-- Arguments come as one string, \1 before each; replies go back as one string (see `encode`).

local databases, snapshots, scripts, known_keys = {}, {}, {}, {}
local db, declared, time

local function wrong_type()
  error({err = 'WRONGTYPE Operation against a key holding the wrong kind of value'}, 0)
end

-- what lies under a key; a key whose time is over goes when a script looks at it
local function entry_of(key)
  if declared then
    if not declared[key] then error({err = 'a key that is not in KEYS: ' .. key}, 0) end
    local entry = db[key]
    if entry and entry.ends and entry.ends <= time[1] + time[2] / 1e6 then db[key] = nil end
  end
  return db[key]
end

-- the content of a key, nil where there is none
local function get(key, kind)
  local entry = entry_of(key)
  if not entry then return nil end
  if entry.kind ~= kind then wrong_type() end
  return entry.value
end

-- the same, made where there is none
local function make(key, kind)
  local value = get(key, kind)
  if not value then
    value = {}
    db[key] = {kind = kind, value = value}
  end
  return value
end

-- an empty key is no key
local function tidy(key)
  local entry = db[key]
  if entry and entry.kind ~= 'string' and next(entry.value) == nil then db[key] = nil end
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function count(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

local function bounds(first, last, length)
  first, last = tonumber(first), tonumber(last)
  if first < 0 then first = math.max(length + first, 0) end
  if last < 0 then last = length + last end
  return first + 1, math.min(last, length - 1) + 1
end

local C = {}

-- Strings and keys

function C.GET(key) return get(key, 'string') or false end

function C.SET(key, value, option, ms)
  get(key, 'string')
  assert(not option or option == 'PX', 'ERR syntax error')
  db[key] = {kind = 'string', value = value, ends = ms and time[1] + time[2] / 1e6 + ms / 1e3}
  return {ok = 'OK'}
end

function C.PING() return {ok = 'PONG'} end
function C.TIME() return {time[1], time[2]} end
function C.PUBLISH() return 0 end

local function has(key) return entry_of(key) ~= nil end

function C.EXISTS(...)
  local n = 0
  for _, key in ipairs({...}) do if has(key) then n = n + 1 end end
  return n
end

function C.DEL(...)
  local n = 0
  for _, key in ipairs({...}) do
    if has(key) then n = n + 1 end
    db[key] = nil
  end
  return n
end

-- all keys that match, and never a cursor
function C.SCAN(_, _, pattern)
  local found = {}
  pattern = '^' .. string.gsub(string.gsub(pattern, '[^%w*]', '%%%0'), '%*', '.*') .. '$'
  for _, key in ipairs(sorted(db)) do
    if string.find(key, pattern) then found[#found + 1] = key end
  end
  return {'0', found}
end

-- no record expires here: it only remembers that it would
function C.PEXPIRE(key) if not has(key) then return 0 end db[key].expires = true return 1 end
function C.PERSIST(key)
  if not has(key) or not db[key].expires then return 0 end
  db[key].expires = nil
  return 1
end

-- Hashes

function C.HGET(key, field) local h = get(key, 'hash') return h and h[field] or false end
function C.HEXISTS(key, field) local h = get(key, 'hash') return h and h[field] and 1 or 0 end
function C.HLEN(key) return count(get(key, 'hash') or {}) end
function C.HKEYS(key) return sorted(get(key, 'hash') or {}) end
function C.HSTRLEN(key, field) local h = get(key, 'hash') return h and h[field] and #h[field] or 0 end

function C.HMGET(key, ...)
  local h, out = get(key, 'hash') or {}, {}
  for i, field in ipairs({...}) do out[i] = h[field] or false end
  return out
end

function C.HSET(key, ...)
  local h, pairs_of, new = make(key, 'hash'), {...}, 0
  assert(#pairs_of > 0 and #pairs_of % 2 == 0, 'ERR wrong number of arguments')
  for i = 1, #pairs_of, 2 do
    if not h[pairs_of[i]] then new = new + 1 end
    h[pairs_of[i]] = pairs_of[i + 1]
  end
  return new
end

function C.HDEL(key, ...)
  local h, n = get(key, 'hash'), 0
  if not h then return 0 end
  for _, field in ipairs({...}) do
    if h[field] then n = n + 1 end
    h[field] = nil
  end
  tidy(key)
  return n
end

function C.HINCRBY(key, field, by)
  local h = make(key, 'hash')
  local value = tonumber(h[field] or '0') + tonumber(by)
  h[field] = string.format('%.0f', value)
  return value
end

function C.HGETALL(key)
  local h, out = get(key, 'hash') or {}, {}
  for _, field in ipairs(sorted(h)) do out[#out + 1] = field out[#out + 1] = h[field] end
  return out
end

-- the first fields in order, and never a cursor: whoever removes what it saw may begin at 0 each time
function C.HSCAN(key, _, _, most)
  local h, out = get(key, 'hash') or {}, {}
  for i, field in ipairs(sorted(h)) do
    if i > tonumber(most) then break end
    out[#out + 1] = field
    out[#out + 1] = h[field]
  end
  return {'0', out}
end

-- Lists; the left end comes first

function C.LLEN(key) return #(get(key, 'list') or {}) end

function C.LPUSH(key, ...)
  local list = make(key, 'list')
  for _, item in ipairs({...}) do table.insert(list, 1, item) end
  return #list
end

function C.RPUSH(key, ...)
  local list = make(key, 'list')
  for _, item in ipairs({...}) do list[#list + 1] = item end
  return #list
end

function C.RPOP(key, most)
  local list = get(key, 'list')
  if not list then return false end
  if not most then
    local item = table.remove(list)
    tidy(key)
    return item
  end
  local out = {}
  for i = 1, math.min(tonumber(most), #list) do out[i] = table.remove(list) end
  tidy(key)
  return out
end

function C.LMOVE(from, to, source, target)
  local list = get(from, 'list')
  get(to, 'list')
  if not list then return false end
  local item = table.remove(list, source == 'LEFT' and 1 or #list)
  tidy(from)
  local other = make(to, 'list')
  table.insert(other, target == 'LEFT' and 1 or #other + 1, item)
  return item
end

function C.LRANGE(key, first, last)
  local list, out = get(key, 'list') or {}, {}
  local from, to = bounds(first, last, #list)
  for i = from, to do out[#out + 1] = list[i] end
  return out
end

function C.LPOS(key, item, ...)
  local list, options, words = get(key, 'list') or {}, {RANK = 1, MAXLEN = 0}, {...}
  for i = 1, #words, 2 do options[words[i]] = tonumber(words[i + 1]) end
  local most = options.MAXLEN > 0 and math.min(options.MAXLEN, #list) or #list
  for n = 1, most do
    local i = options.RANK == -1 and #list + 1 - n or n
    if list[i] == item then return i - 1 end
  end
  return false
end

function C.LTRIM(key, first, last)
  local list = get(key, 'list')
  if list then
    db[key].value = C.LRANGE(key, first, last)
    tidy(key)
  end
  return {ok = 'OK'}
end

function C.LREM(key, most, item)
  local list, n = get(key, 'list'), 0
  if not list then return 0 end
  most = tonumber(most)
  local from, to, step = 1, #list, 1
  if most < 0 then from, to, step = #list, 1, -1 end
  local kept, limit = {}, most == 0 and #list or math.abs(most)
  for i = from, to, step do
    if list[i] == item and n < limit then n = n + 1
    else table.insert(kept, step == 1 and #kept + 1 or 1, list[i]) end
  end
  db[key].value = kept
  tidy(key)
  return n
end

-- Sets

function C.SADD(key, ...)
  local set, n = make(key, 'set'), 0
  for _, member in ipairs({...}) do
    if not set[member] then n = n + 1 end
    set[member] = true
  end
  return n
end

function C.SREM(key, ...)
  local set, n = get(key, 'set'), 0
  if not set then return 0 end
  for _, member in ipairs({...}) do
    if set[member] then n = n + 1 end
    set[member] = nil
  end
  tidy(key)
  return n
end

function C.SMEMBERS(key) return sorted(get(key, 'set') or {}) end

function C.SMISMEMBER(key, ...)
  local set, out = get(key, 'set') or {}, {}
  for i, member in ipairs({...}) do out[i] = set[member] and 1 or 0 end
  return out
end

-- Sorted sets; scores are numbers

local function text(score) return string.format('%.17g', score) end

local function number(score)
  if score == '-inf' then return -math.huge elseif score == '+inf' then return math.huge end
  local value = tonumber(score)
  if not value then error({err = 'ERR value is not a valid float'}, 0) end
  return value
end

local function ranked(zset)
  local members = sorted(zset)
  local place = {}
  for i, member in ipairs(members) do place[member] = i end
  table.sort(members, function(a, b)
    if zset[a] ~= zset[b] then return zset[a] < zset[b] end
    return place[a] < place[b]
  end)
  return members
end

function C.ZADD(key, ...)
  local zset, n, rows = make(key, 'zset'), 0, {...}
  for i = 1, #rows, 2 do
    if not zset[rows[i + 1]] then n = n + 1 end
    zset[rows[i + 1]] = number(rows[i])
  end
  return n
end

function C.ZREM(key, ...)
  local zset, n = get(key, 'zset'), 0
  if not zset then return 0 end
  for _, member in ipairs({...}) do
    if zset[member] then n = n + 1 end
    zset[member] = nil
  end
  tidy(key)
  return n
end

function C.ZCARD(key) return count(get(key, 'zset') or {}) end

function C.ZSCORE(key, member)
  local zset = get(key, 'zset')
  return zset and zset[member] and text(zset[member]) or false
end

function C.ZMSCORE(key, ...)
  local zset, out = get(key, 'zset') or {}, {}
  for i, member in ipairs({...}) do out[i] = zset[member] and text(zset[member]) or false end
  return out
end

function C.ZRANGE(key, first, last, scores)
  local zset, out = get(key, 'zset') or {}, {}
  local members = ranked(zset)
  local from, to = bounds(first, last, #members)
  for i = from, to do
    out[#out + 1] = members[i]
    if scores then out[#out + 1] = text(zset[members[i]]) end
  end
  return out
end

function C.ZRANGEBYSCORE(key, least, most, _, offset, limit)
  local zset, out = get(key, 'zset') or {}, {}
  least, most, offset, limit = number(least), number(most), tonumber(offset or 0), tonumber(limit or -1)
  for _, member in ipairs(ranked(zset)) do
    if zset[member] >= least and zset[member] <= most then
      if offset > 0 then offset = offset - 1
      elseif limit < 0 or #out < limit then out[#out + 1] = member end
    end
  end
  return out
end

function C.ZREMRANGEBYSCORE(key, least, most)
  local found = C.ZRANGEBYSCORE(key, least, most)
  return #found > 0 and C.ZREM(key, unpack(found)) or 0
end

function C.ZREMRANGEBYRANK(key, first, last)
  local found = C.ZRANGE(key, first, last)
  return #found > 0 and C.ZREM(key, unpack(found)) or 0
end

-- What scripts see

local function call(name, ...)
  local command = C[name]
  if not command then error({err = 'ERR the fake server does not know ' .. tostring(name)}, 0) end
  local words = {...}
  for i = 1, select('#', ...) do
    local kind = type(words[i])
    if kind == 'number' then words[i] = text(words[i])
    elseif kind ~= 'string' then error({err = 'ERR argument ' .. i .. ' of ' .. name .. ' is ' .. kind}, 0) end
  end
  return command(unpack(words))
end

redis = {call = call}

function redis.pcall(...)
  local fine, reply = pcall(call, ...)
  if fine then return reply end
  return type(reply) == 'table' and reply or {err = tostring(reply)}
end

-- What the outside calls

local function split(joined)
  local words = {}
  for word in string.gmatch(joined, '\1([^\1]*)') do words[#words + 1] = word end
  return words
end

-- N nothing, I number, S text, E error, A array (its items after \1, those of an inner one after \2)
local function encode(reply, mark)
  local kind = type(reply)
  if kind == 'string' then return 'S' .. reply end
  if kind == 'number' then return 'I' .. string.format('%.0f', reply >= 0 and math.floor(reply) or math.ceil(reply)) end
  if kind ~= 'table' then return reply and 'I1' or 'N' end
  if reply.err then return 'E' .. reply.err end
  if reply.ok then return 'S' .. reply.ok end
  local out = {'A'}
  for _, item in ipairs(reply) do out[#out + 1] = mark .. encode(item, '\2') end
  return table.concat(out)
end

local function answer(fine, reply)
  if fine then return encode(reply, '\1') end
  return 'E' .. (type(reply) == 'table' and reply.err or 'ERR ' .. tostring(reply))
end

local function open(slot)
  db = databases[slot]
  if not db then
    db = {}
    databases[slot] = db
  end
end

function define(name, source)
  scripts[name] = assert(loadstring('local KEYS, ARGV = ...; ' .. source, name))
end

function evaluate(slot, name, keys, arguments, seconds, micros)
  open(slot)
  time = {seconds, micros}
  local known = known_keys[keys]
  if not known then
    known = {split(keys), {}}
    for _, key in ipairs(known[1]) do known[2][key] = true end
    known_keys[keys] = known
  end
  declared = known[2]
  local reply = answer(pcall(scripts[name], known[1], split(arguments)))
  declared = nil
  return reply
end

function execute(slot, name, arguments)
  open(slot)
  return answer(pcall(call, name, unpack(split(arguments))))
end

function reset() databases, snapshots, known_keys = {}, {}, {} end

local function copy(value)
  if type(value) ~= 'table' then return value end
  local out = {}
  for name, item in pairs(value) do out[name] = copy(item) end
  return out
end

-- a failover that takes writes back: what was remembered stands again
function remember(slot) open(slot) snapshots[slot] = copy(db) end
function restore(slot) databases[slot] = copy(snapshots[slot] or {}) end

function keys(slot) open(slot) return encode(sorted(db), '\1') end
function kind(slot, key) open(slot) return db[key] and db[key].kind or 'none' end
