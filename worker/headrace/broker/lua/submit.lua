#!lua
-- submit: one or many tasks enter a queue; idempotent by id. No allow-oom: at full memory submissions are refused, work drains.
-- keys: 3 2 1 0 loc later body ctl u wake t
-- ARGV: 1 now in ms ('' = server's) · 2 maxDepth, live tasks (0 = none) · 3 touch: '1' = write even if nothing is new, so that WAIT confirms something
--       then per task: id · where · envelope. where = priority digit, 'u' if the envelope holds a unique key, then '+<ms>' delay or '@<ms>' due
-- returns: {answers, holder…}: a letter a task: n new, k known and live, t known and ended, u its unique key is held (holders follow in order), f full
-- include: base carry place
local loc_pairs, fresh, answers, holders, keys = {}, {}, {}, {}, {}
-- Those whose answer rests on a task that this very call adds.
local behind = {}
local first = 4

local function known()
  local ids, records = {}, {}
  for a = first, #ARGV, 3 do
    ids[#ids + 1] = ARGV[a]
    records[#records + 1] = K.t .. ARGV[a]
  end
  return call('HMGET', K.loc, unpack(ids)), call('EXISTS', unpack(records)) > 0
end

local function judge()
  local live, some_ended = known()
  local taken, taken_keys = {}, {}
  for i = 1, #live do
    local a = first + (i - 1) * 3
    local id, key = ARGV[a], nil
    if sub(ARGV[a + 1], 2, 2) == 'u' then key = unique_of(ARGV[a + 2]) end
    local holder = key and (taken_keys[key] or call('HGET', K.u, key))
    if live[i] or taken[id] then
      answers[i] = 'k'
      if not live[i] then behind[#behind + 1] = i end
    elseif some_ended and call('EXISTS', K.t .. id) == 1 then
      answers[i] = 't'
    elseif holder then
      answers[i] = 'u'
      holders[i] = holder
      if taken_keys[key] then behind[#behind + 1] = i end
    else
      answers[i] = 'n'
      taken[id] = true
      if key then
        taken_keys[key] = id
        keys[i] = key
      end
      fresh[#fresh + 1] = i
    end
  end
end

local now
local function due_of(where)
  local sign, ms = match(where, '^%du?([+@])(%d+)$')
  if not sign then return nil end
  now = now or clock(ARGV[1])
  return sign == '@' and tonumber(ms) or now + tonumber(ms)
end

local function place_delayed(id, envelope, due)
  local earliest = call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2]
  call('ZADD', K.later, digits(due), id)
  call('HSET', K.body, id, record('scheduled', envelope, ''))
  return not earliest or due < tonumber(earliest)
end

local function place_all()
  local wake = false
  for _, i in ipairs(fresh) do
    local a = first + (i - 1) * 3
    local id, where, envelope = ARGV[a], ARGV[a + 1], ARGV[a + 2]
    local due = #where > 1 and due_of(where)
    local place = 'z'
    if due then
      wake = place_delayed(id, envelope, due) or wake
    else
      place = add(sub(where, 1, 1), envelope, '')
      wake = true
    end
    loc_pairs[#loc_pairs + 1] = id
    loc_pairs[#loc_pairs + 1] = place
    if keys[i] then call('HSET', K.u, keys[i], id) end
  end
  call('HSET', K.loc, unpack(loc_pairs))
  return wake
end

-- All or none: whoever shares the call with a refused task must not hear that it is known.
local function refuse_all()
  for _, list in ipairs({fresh, behind}) do
    for _, i in ipairs(list) do answers[i], holders[i] = 'f', nil end
  end
  fresh = {}
end

judge()
local max_depth = tonumber(ARGV[2])
if max_depth > 0 and #fresh > 0 and call('HLEN', K.loc) + #fresh > max_depth then
  refuse_all()
end
if #fresh > 0 then
  if place_all() then push_marker() end
elseif ARGV[3] == '1' then
  call('HINCRBY', K.ctl, 'touch', 1)
end
local reply = {concat(answers)}
if next(holders) then
  for i = 1, #answers do reply[#reply + 1] = holders[i] end
end
return reply
