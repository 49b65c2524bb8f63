#!lua flags=allow-oom
-- cycle: a worker reports the attempts that ended and claims what fits, in one call. Only XACK = 1 entitles a report to change anything.
-- keys: r s 3 2 1 0 loc later body parked stats ctl journal rev dead u wake t
-- ARGV: 1 worker · 2 free slots (0 = only report) · 3 order of streams, e.g. rs3210 · 4 now in ms ('' = server's) · 5 touch ('1' = always write)
--       6 retention in s of completed and cancelled · 7 journal cap, entries
--       then per group of reports: stream digit · outcome (completed retrying parked failed cancelled) · argument · type · how many,
--       then all of their entry ids · all ids · all records.  argument: retrying: delay in ms; parked: index key;
--       completed: its own retention in s; else ''
-- returns: {{place, verdict, …}, flags, next due ms or '', {{digit, entry id, envelope, entry id, envelope, …}, …}, {place, N, …}}
--       verdicts (only of reports not accepted now): dup (accepted before) stale (somebody else's since) gone (no trace)
--       flags: 1 paused, 2 a group is missing (make the queue again); claims by stream; N only of claims that have one
-- include: names
local FIRST = 8
local argv = ARGV
local worker, want, order, ttl = argv[1], tonumber(argv[2]), argv[3], argv[6]
local verdicts, claims, carried, flags = {}, {}, {}, 0
-- All three are empty nearly always: one look instead of three.
local some = call('EXISTS', K.rev, K.u, K.later) > 0

-- What most calls do not need.
local made
local function unusual()
  if made then return made end
  -- include: base carry depth
  made = {fields = fields}

  -- Of entries that were acknowledged together and were not all pending: was this one? Whatever ends an attempt deletes
  -- its entry in the same breath, so what has been given out and is still there was pending until now.
  function made.take(stream, entry)
    local info = call('EXISTS', stream) == 1 and group(stream)
    if not info or #call('XRANGE', stream, '(' .. info['last-delivered-id'], entry, 'COUNT', 1) > 0 then return false end
    return call('XDEL', stream, entry) == 1
  end

  -- What became of a report that is not accepted now.
  function made.verdict(id, place, outcome)
    local text, n = call('GET', K.t .. id), ''
    if text then
      n = select(3, cut(text)) or ''
    else
      local at = call('HGET', K.loc, id)
      if not at then return 'gone' end
      local digit, entry = split(at)
      if digit == 'z' or digit == 'p' then
        text = call('HGET', K.body, id)
        n = text and select(3, cut(text)) or ''
      else
        local found = entry_at(digit, entry)
        n = found and select(2, fields(found[2])) or ''
      end
    end
    return reported(n, place, outcome) and 'dup' or 'stale'
  end

  -- The less frequent endings. Whether the task has left.
  function made.enter(outcome, id, text, argument)
    local now = outcome ~= 'parked' and clock(argv[4])
    if outcome == 'failed' then
      call('SET', K.t .. id, text)
      call('ZADD', K.dead, digits(now), id)
      return true
    end
    call('HSET', K.body, id, text)
    if outcome == 'retrying' then
      call('ZADD', K.later, digits(now + (tonumber(argument) or 0)), id)
      call('HSET', K.loc, id, 'z')
      some = true
    else
      call('ZADD', K.parked, 0, argument .. '\n' .. id)
      call('HSET', K.loc, id, 'p' .. argument)
    end
    return false
  end

  function made.release_key(id, text)
    local _, envelope = cut(text)
    local key = envelope and unique_of(envelope)
    if key and call('HGET', K.u, key) == id then call('HDEL', K.u, key) end
  end
  return made
end

if #argv >= FIRST then
  local some_asked = some and call('HLEN', K.rev) > 0
  local some_keys = some and call('HLEN', K.u) > 0
  local gone, gone_ids, ended = 0, {}, {}
  local a, records = FIRST, K.t
  while a <= #argv do
    local digit, outcome, argument, kind, count = argv[a], argv[a + 1], argv[a + 2], argv[a + 3], tonumber(argv[a + 4])
    local stream, first, last, accepted, cancelled = K[digit], a + 5, a + 4 + count, 0, 0
    -- All together, for a call costs as much as what it does.
    local all = call('XACK', stream, GROUP, unpack(argv, first, last)) == count
    if all then call('XDEL', stream, unpack(argv, first, last)) end
    local keep = outcome == 'completed' and argument ~= '' and argument or ttl
    -- Something foreign may have written a type with a line break in it.
    local tail = find(kind, '^[%w_.:-]+$') and ' ' .. kind .. '\n' or ' \n'
    local lead, ending = ' ' .. digit, ' ' .. outcome .. tail
    for i = first, last do
      local entry, id, text, became = argv[i], argv[i + count], argv[i + 2 * count], outcome
      if all or unusual().take(stream, entry) then
        accepted = accepted + 1
        if some_asked and call('HDEL', K.rev, id) == 1 and outcome ~= 'completed' then
          became, cancelled = 'cancelled', cancelled + 1
          text = became .. sub(text, find(text, ' ', 1, true), -1)
        end
        local ends = true
        if became == 'completed' or became == 'cancelled' then
          -- GET, because what was there (nothing) costs less to be told than OK, which comes as a table.
          call('SET', records .. id, text, 'EX', keep, 'GET')
        else
          ends = unusual().enter(became, id, text, argument)
        end
        if ends then
          local line = 4 * gone
          gone = gone + 1
          gone_ids[gone] = id
          ended[line + 1], ended[line + 2], ended[line + 3] = id, lead, entry
          ended[line + 4] = became == outcome and ending or ' ' .. became .. tail
          if some_keys then unusual().release_key(id, text) end
        end
      else
        verdicts[#verdicts + 1] = digit .. entry
        verdicts[#verdicts + 1] = unusual().verdict(id, digit .. entry, outcome)
      end
    end
    if accepted > cancelled then call('HINCRBY', K.stats, outcome .. ':' .. kind, accepted - cancelled) end
    if cancelled > 0 then call('HINCRBY', K.stats, 'cancelled:' .. kind, cancelled) end
    a = first + 3 * count
  end
  if gone > 0 then
    call('HDEL', K.loc, unpack(gone_ids))
    ended[#ended] = sub(ended[#ended], 1, -2)
    call('XADD', K.journal, 'MAXLEN', '~', argv[7], '*', 'e', concat(ended))
  end
  if argv[5] == '1' and #verdicts > 0 then call('HINCRBY', K.ctl, 'touch', 1) end
end

local paused = call('HGET', K.ctl, 'paused')
local free = paused and 0 or want
for i = 1, free > 0 and #order or 0 do
  local digit = sub(order, i, i)
  local stream, count = K[digit], free
  if count > 0 and call('XLEN', stream) > 0 then
    if digit == 's' then
      -- One suspect a worker at a time, asked here so that lost replies count too.
      local held = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, worker)
      count = (held.err or #held == 0) and 1 or 0
    end
    local got = count > 0 and redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', count, 'STREAMS', stream, '>')
    if got and got.err then
      -- Whatever else it is, making the queue again would not mend it.
      if not find(got.err, 'NOGROUP', 1, true) then return redis.error_reply('ERR XREADGROUP is refused: ' .. got.err) end
      flags = 2
      break
    end
    if got then
      local entries = got[1][2]
      local rows = {digit}
      for j = 1, #entries do
        local entry, pair = entries[j][1], entries[j][2]
        local envelope = pair[2]
        if pair[3] or pair[1] ~= 'd' then
          local n
          envelope, n = unusual().fields(pair)
          if n ~= '' then
            carried[#carried + 1] = digit .. entry
            carried[#carried + 1] = n
          end
        end
        rows[j * 2], rows[j * 2 + 1] = entry, envelope
      end
      claims[#claims + 1] = rows
      free = free - #entries
    end
  end
end
if paused then
  flags = 1
elseif flags == 0 and (free < want or want == 0) and call('LLEN', K.wake) == 0 then
  -- A push is paid for by a claim or by a full process that steps out, so nothing loops (a naive "whoever leaves work passes it on" spins).
  -- include: depth
  local work = false
  if free == 0 then work = left('r') or left('3') or left('2') or left('1') or left('0') end
  if not work and free < want then work = left('s') end
  if work then call('LPUSH', K.wake, '1') end
end
local due = some and call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''
return {verdicts, flags, due, claims, carried}
