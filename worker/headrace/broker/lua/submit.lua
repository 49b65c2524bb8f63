#!lua
-- submit: one or many tasks enter a queue; idempotent by id. No allow-oom: at full memory submissions are refused, work drains.
-- keys: 3 2 1 0 loc later body ctl u wake t
-- ARGV: 1 now in ms ('' = server's) · 2 maxDepth, live tasks (0 = none) · 3 touch: '1' = write even if nothing is new, so that WAIT confirms something
--       then per task: id · where · envelope. where = priority digit, 'u' if the envelope holds a unique key, then '+<ms>' delay or '@<ms>' due
-- returns: {answers, holder…}: a letter a task: n new, k known and live, t known and ended, u its unique key is held (holders follow in order), f full
-- include: base carry place
local FIRST, COMPACT = 4, 64
local argv = ARGV
local answers, fresh, new, holders = {}, {}, 0, {}
local keys = nil
-- Those whose answer rests on a task that this very call adds.
local behind = {}

local function judge()
  local ids, records, n, prefix = {}, {}, 0, K.t
  for a = FIRST, #argv, 3 do
    n = n + 1
    local id = argv[a]
    ids[n], records[n] = id, prefix .. id
  end
  local live = call('HMGET', K.loc, unpack(ids))
  local some_ended = call('EXISTS', unpack(records)) > 0
  local taken, taken_keys = {}, nil
  for i = 1, n do
    local id, where = ids[i], argv[FIRST - 2 + i * 3]
    local key, holder
    if #where > 1 and sub(where, 2, 2) == 'u' then
      key = unique_of(argv[FIRST - 1 + i * 3])
      taken_keys = taken_keys or {}
      keys = keys or {}
      holder = key and (taken_keys[key] or call('HGET', K.u, key))
    end
    if live[i] or taken[id] then
      answers[i] = 'k'
      if not live[i] then behind[#behind + 1] = i end
    elseif some_ended and call('EXISTS', records[i]) == 1 then
      answers[i] = 't'
    elseif holder then
      answers[i] = 'u'
      holders[i] = holder
      if taken_keys[key] then behind[#behind + 1] = i end
    else
      answers[i] = 'n'
      if n > 1 then taken[id] = true end
      if key then
        taken_keys[key] = id
        keys[i] = key
      end
      new = new + 1
      fresh[new] = i
    end
  end
end

local now
local function due_of(where)
  local sign, ms = match(where, '^%du?([+@])(%d+)$')
  if not sign then return nil end
  now = now or clock(argv[1])
  return sign == '@' and tonumber(ms) or now + tonumber(ms)
end

local function place_delayed(id, envelope, due)
  local earliest = call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2]
  call('ZADD', K.later, digits(due), id)
  call('HSET', K.body, id, record('scheduled', envelope, ''))
  return not earliest or due < tonumber(earliest)
end

local function place_all()
  local wake, places, at = false, {}, 0
  for j = 1, new do
    local i = fresh[j]
    local a = FIRST + (i - 1) * 3
    local id, where, envelope = argv[a], argv[a + 1], argv[a + 2]
    local plain = #where == 1
    local due, place = not plain and due_of(where), 'z'
    if due then
      wake = place_delayed(id, envelope, due) or wake
    else
      local digit = plain and where or sub(where, 1, 1)
      place = digit .. call('XADD', K[digit], '*', 'd', envelope)
      wake = true
    end
    places[at + 1], places[at + 2] = id, place
    at = at + 2
    if keys and keys[i] then call('HSET', K.u, keys[i], id) end
  end
  call('HSET', K.loc, unpack(places))
  return wake
end

-- All or none: whoever shares the call with a refused task must not hear that it is known.
local function refuse_all()
  for _, list in ipairs({fresh, behind}) do
    for _, i in ipairs(list) do answers[i], holders[i] = 'f', nil end
  end
  new = 0
end

-- Up to 512 short fields Redis keeps a hash as one list and searches it from the front: with 450 live tasks that doubles
-- the cost of a task. One field that is too long for such a list turns it into a table for good.
local function make_searchable()
  local long = string.rep('-', 65)
  call('HSET', K.loc, long, '')
  call('HDEL', K.loc, long)
end

judge()
local max_depth, live = tonumber(argv[2]), 0
if new > 0 then live = call('HLEN', K.loc) end
if max_depth > 0 and live + new > max_depth then refuse_all() end
if new > 0 then
  if place_all() then push_marker() end
  if live < COMPACT and live + new >= COMPACT then make_searchable() end
elseif argv[3] == '1' then
  call('HINCRBY', K.ctl, 'touch', 1)
end
local reply = {concat(answers)}
if next(holders) then
  for i = 1, #answers do reply[#reply + 1] = holders[i] end
end
return reply
