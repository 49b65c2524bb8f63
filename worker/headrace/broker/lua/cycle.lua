#!lua flags=allow-oom
-- cycle: a worker reports the attempts that ended and claims what fits, in one call. Only XACK = 1 entitles a report to change anything.
-- keys: r s 3 2 1 0 loc later body parked stats ctl journal rev dead u wake t
-- ARGV: 1 worker · 2 free slots (0 = only report) · 3 order of streams, e.g. rs3210 · 4 now in ms ('' = server's) · 5 touch ('1' = always write)
--       6 retention in s of completed and cancelled · 7 journal cap, entries
--       then per report: place · id · outcome (completed retrying parked failed cancelled) · argument · type · record
--       argument: retrying: delay in ms; parked: index key; else ''
-- returns: {{report index, verdict, …}, flags, next due ms or '', {digit, entry id, envelope, N, …}}
--       verdicts (only of reports not accepted now): dup (accepted before) stale (somebody else's since) gone (no trace)
--       flags: 1 paused, 2 a group is missing (make the queue again)
-- include: base carry place depth
local FIRST, STEP = 8, 6
local argv, call = ARGV, redis.call
local worker, want = argv[1], tonumber(argv[2])
local verdicts, claims, flags, last = {}, {}, 0, #argv
-- All three are empty nearly always: one look instead of three.
local some = call('EXISTS', K.rev, K.u, K.later) > 0

-- What became of a report that is not accepted now.
local function verdict(id, place, outcome)
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

-- The less frequent endings.
local function enter(outcome, id, text, argument)
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
  else
    call('ZADD', K.parked, 0, argument .. '\n' .. id)
    call('HSET', K.loc, id, 'p' .. argument)
  end
  return false
end

local function release_unique(id, text)
  local _, envelope = cut(text)
  local key = envelope and unique_of(envelope)
  if key and call('HGET', K.u, key) == id then call('HDEL', K.u, key) end
end

local function report_all()
  local entries_of, gone_ids, ended, counts, gone = {}, {}, {}, {}, 0
  local some_asked = some and call('HLEN', K.rev) > 0
  local some_unique = some and call('HLEN', K.u) > 0
  local records, ttl = K.t, argv[6]
  for a = FIRST, last, STEP do
    local place, id, outcome = argv[a], argv[a + 1], argv[a + 2]
    local digit, entry = sub(place, 1, 1), sub(place, 2)
    local stream = K[digit]
    if stream and call('XACK', stream, GROUP, entry) == 1 then
      local entries, text = entries_of[digit], argv[a + 5]
      if entries then
        entries[#entries + 1] = entry
      else
        entries_of[digit] = {entry}
      end
      if some_asked and call('HDEL', K.rev, id) == 1 and outcome ~= 'completed' then
        outcome = 'cancelled'
        text = outcome .. sub(text, find(text, ' ', 1, true), -1)
      end
      local ends = true
      if outcome == 'completed' or outcome == 'cancelled' then
        call('SET', records .. id, text, 'EX', ttl)
      else
        ends = enter(outcome, id, text, argv[a + 3])
      end
      if ends then
        gone = gone + 1
        gone_ids[gone] = id
        ended[gone] = id .. ' ' .. place .. ' ' .. outcome
        if some_unique then release_unique(id, text) end
      end
      local counter = outcome .. ':' .. argv[a + 4]
      counts[counter] = (counts[counter] or 0) + 1
    else
      verdicts[#verdicts + 1] = (a - FIRST) / STEP
      verdicts[#verdicts + 1] = verdict(id, place, outcome)
    end
  end
  for digit, entries in pairs(entries_of) do call('XDEL', K[digit], unpack(entries)) end
  if gone > 0 then
    call('HDEL', K.loc, unpack(gone_ids))
    call('XADD', K.journal, 'MAXLEN', '~', argv[7], '*', 'e', concat(ended, '\n'))
  end
  for counter, count in pairs(counts) do call('HINCRBY', K.stats, counter, count) end
  if argv[5] == '1' and #verdicts > 0 then call('HINCRBY', K.ctl, 'touch', 1) end
end

local function claim_all()
  local slots, at = want, 0
  for i = 1, #argv[3] do
    local digit = sub(argv[3], i, i)
    if slots == 0 then break end
    local stream, count = K[digit], slots
    if call('XLEN', stream) > 0 then
      if digit == 's' then
        -- One suspect a worker at a time, asked here so that lost replies count too.
        local held = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, worker)
        count = (held.err or #held == 0) and 1 or 0
      end
      local got = count > 0 and redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', count, 'STREAMS', stream, '>')
      if got and got.err then
        flags = flags + 2
        break
      end
      if got then
        local entries = got[1][2]
        for j = 1, #entries do
          local entry = entries[j]
          local pair = entry[2]
          local envelope, n = pair[2], ''
          if pair[3] or pair[1] ~= 'd' then envelope, n = fields(pair) end
          claims[at + 1], claims[at + 2], claims[at + 3], claims[at + 4] = digit, entry[1], envelope, n
          at = at + 4
        end
        slots = slots - #entries
      end
    end
  end
  return want - slots
end

-- A push is paid for by a claim or by a full process that steps out, so nothing loops (a naive "whoever leaves work passes it on" spins).
local function pass_on(claimed)
  if call('LLEN', K.wake) > 0 then return end
  local work = false
  if (claimed > 0 or want == 0) and claimed == want then
    work = left('r') or left('3') or left('2') or left('1') or left('0')
  end
  if not work and claimed > 0 then work = left('s') end
  if work then call('LPUSH', K.wake, '1') end
end

if last >= FIRST then report_all() end
if call('HGET', K.ctl, 'paused') then
  flags = flags + 1
else
  local claimed = want > 0 and claim_all() or 0
  if flags < 2 and (claimed > 0 or want == 0) then pass_on(claimed) end
end
local due = call('EXISTS', K.later) == 1 and call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''
return {verdicts, flags, due, claims}
