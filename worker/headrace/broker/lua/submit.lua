#!lua
-- submit: one or many tasks enter a queue; idempotent by id. No allow-oom: at full memory submissions are refused, work drains.
-- keys: 3 2 1 0 loc later body ctl u once wake t
-- ARGV: 1 now in ms ('' = server's) · 2 maxDepth, live tasks (0 = none), unless the queue has one of its own · 3 touch: '1' = write even if nothing is new, so that WAIT confirms something
--       4 where all go, if it is the same for all and no id is told twice, else '' · then all ids · all envelopes · after '' all their wheres
--       where = priority digit; 'u' if the envelope holds a unique key,
--       'o<ms>:<hash>' if it refuses others under that key for so long; then '+<ms>' delay or '@<ms>' due
-- returns: {answers, holder…}: a letter a task: n new, k known and live, t known and ended, u its unique key is held (holders follow in order), f full (the limit is the last element)
-- include: names
local FIRST, COMPACT = 5, 64
local argv = ARGV
local max_depth, all_go = tonumber(argv[2]), argv[4]
local count = (#argv - FIRST + 1) / (all_go == '' and 3 or 2)
local letters, holders, new, wake = '', nil, 0, false
local own = call('HGET', K.ctl, 'max_depth')
if own then max_depth = tonumber(own) end

local known, records = call('HMGET', K.loc, unpack(argv, FIRST, FIRST + count - 1)), {}
for i = 1, count do records[i] = K.t .. argv[FIRST + i - 1] end
local some_ended = call('EXISTS', unpack(records)) > 0
local live = call('HLEN', K.loc)
local plain = #all_go == 1 and not some_ended and (max_depth == 0 or live + count <= max_depth)
for i = 1, plain and count or 0 do plain = plain and not known[i] end

if plain then
  -- New tasks that go to one stream: the same without the tables and functions, which cost as much as the commands.
  local stream, places = K[all_go], {}
  for i = 1, count do
    local at = FIRST + i - 1
    places[i * 2 - 1], places[i * 2] = argv[at], all_go .. call('XADD', stream, '*', 'd', argv[at + count])
  end
  call('HSET', K.loc, unpack(places))
  letters, new, wake = string.rep('n', count), count, true
else
  local answers, fresh = {}, {}
  local keys = {}
  holders = {}
  -- Those whose answer rests on a task that this very call adds.
  local behind = {}

  local function told(i)
    local at = FIRST + i - 1
    return argv[at], all_go ~= '' and all_go or argv[at + 2 * count], argv[at + count]
  end

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

  local taken, taken_keys = {}, {}
  for i = 1, count do
    local id, where, envelope = told(i)
    local key, holder
    if #where > 1 then
      key = unusual().key_of(where, envelope)
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
      taken[id] = true
      if key then
        taken_keys[key] = id
        keys[i] = key
      end
      new = new + 1
      fresh[new] = i
    end
  end

  -- All or none: whoever shares the call with a refused task must not hear that it is known.
  if max_depth > 0 and live + new > max_depth then
    for _, list in ipairs({fresh, behind}) do
      for _, i in ipairs(list) do answers[i], holders[i] = 'f', nil end
    end
    new = 0
  end

  local places = {}
  for j = 1, new do
    local i = fresh[j]
    local id, where, envelope = told(i)
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
