#!lua
-- submit: one or many tasks enter a queue; idempotent by id. No allow-oom: at full memory submissions are refused, work drains.
-- keys: 3 2 1 0 loc later body ctl u once wake t
-- ARGV: 1 now in ms ('' = server's) · 2 maxDepth, live tasks (0 = none), unless the queue has one of its own · 3 touch: '1' = write even if nothing is new, so that WAIT confirms something
--       then per task: id · where · envelope. where = priority digit; 'u' if the envelope holds a unique key,
--       'o<ms>:<hash>' if it refuses others under that key for so long; then '+<ms>' delay or '@<ms>' due
-- returns: {answers, holder…}: a letter a task: n new, k known and live, t known and ended, u its unique key is held (holders follow in order), f full (the limit is the last element)
-- include: names
local FIRST, COMPACT = 4, 64
local argv = ARGV
local count, max_depth = (#argv - FIRST + 1) / 3, tonumber(argv[2])
local letters, holders, new, live, wake = '', nil, 0, 0, false
local own = call('HGET', K.ctl, 'max_depth')
if own then max_depth = tonumber(own) end

if count == 1 and #argv[FIRST + 1] == 1 then
  -- One plain task: the same without a table or a function, which cost as much as the commands.
  local id, digit = argv[FIRST], argv[FIRST + 1]
  if call('HEXISTS', K.loc, id) == 1 then
    letters = 'k'
  elseif call('EXISTS', K.t .. id) == 1 then
    letters = 't'
  else
    live = call('HLEN', K.loc)
    if max_depth > 0 and live >= max_depth then
      letters, holders = 'f', {}
    else
      call('HSET', K.loc, id, digit .. call('XADD', K[digit], '*', 'd', argv[FIRST + 2]))
      letters, new, wake = 'n', 1, true
    end
  end
else
  local answers, fresh = {}, {}
  local keys = {}
  holders = {}
  -- Those whose answer rests on a task that this very call adds.
  local behind = {}

  -- What only delayed tasks and those with a unique key need.
  local made
  local function unusual()
    if made then return made end
    -- include: base carry
    local now
    local function due_of(where)
      local sign, ms = match(where, '^%d[^+@]*([+@])(%d+)$')
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

    local function key_of(where, envelope)
      if sub(where, 2, 2) == 'u' then return unique_of(envelope) end
      return match(where, '^%do%d+:(%x+)')
    end

    local function hold_key(key, id, where)
      local ms = match(where, '^%do(%d+):')
      if ms then
        call('SET', K.once .. key, id, 'PX', ms)
      else
        call('HSET', K.u, key, id)
      end
    end

    made = {due_of = due_of, place_delayed = place_delayed, key_of = key_of, hold_key = hold_key}
    return made
  end

  local ids, records = {}, {}
  for i = 1, count do
    local id = argv[FIRST - 3 + i * 3]
    ids[i], records[i] = id, K.t .. id
  end
  local known = call('HMGET', K.loc, unpack(ids))
  local some_ended = call('EXISTS', unpack(records)) > 0
  local taken, taken_keys = {}, {}
  for i = 1, count do
    local id, where = ids[i], argv[FIRST - 2 + i * 3]
    local key, holder
    if #where > 1 then
      key = unusual().key_of(where, argv[FIRST - 1 + i * 3])
      holder = key and (taken_keys[key] or call('HGET', K.u, key) or call('GET', K.once .. key))
    end
    if known[i] or taken[id] then
      answers[i] = 'k'
      if not known[i] then behind[#behind + 1] = i end
    elseif some_ended and call('EXISTS', records[i]) == 1 then
      answers[i] = 't'
    elseif holder then
      answers[i] = 'u'
      holders[i] = holder
      if taken_keys[key] then behind[#behind + 1] = i end
    else
      answers[i] = 'n'
      if count > 1 then taken[id] = true end
      if key then
        taken_keys[key] = id
        keys[i] = key
      end
      new = new + 1
      fresh[new] = i
    end
  end

  -- All or none: whoever shares the call with a refused task must not hear that it is known.
  if new > 0 then live = call('HLEN', K.loc) end
  if max_depth > 0 and live + new > max_depth then
    for _, list in ipairs({fresh, behind}) do
      for _, i in ipairs(list) do answers[i], holders[i] = 'f', nil end
    end
    new = 0
  end

  local places = {}
  for j = 1, new do
    local i = fresh[j]
    local at = FIRST + (i - 1) * 3
    local id, where, envelope = argv[at], argv[at + 1], argv[at + 2]
    local due, place = #where > 1 and unusual().due_of(where), 'z'
    if due then
      wake = unusual().place_delayed(id, envelope, due) or wake
    else
      local digit = #where > 1 and sub(where, 1, 1) or where
      place = digit .. call('XADD', K[digit], '*', 'd', envelope)
      wake = true
    end
    places[j * 2 - 1], places[j * 2] = id, place
    if keys[i] then unusual().hold_key(keys[i], id, where) end
  end

  if new > 0 then call('HSET', K.loc, unpack(places)) end
  letters = concat(answers)
end

if new > 0 then
  -- include: marker
  if wake then push_marker() end
  -- Up to 512 short fields Redis keeps a hash as one list and searches it from the front: with 450 live tasks that doubles
  -- the cost of a task. One field that is too long for such a list turns it into a table for good.
  if live < COMPACT and live + new >= COMPACT then
    local long = string.rep('-', 65)
    call('HSET', K.loc, long, '')
    call('HDEL', K.loc, long)
  end
elseif argv[3] == '1' then
  call('HINCRBY', K.ctl, 'touch', 1)
end

local reply = {letters}
if holders then
  for i = 1, count do reply[#reply + 1] = holders[i] end
  if find(letters, 'f', 1, true) then reply[#reply + 1] = string.format('%.0f', max_depth) end
end
return reply
