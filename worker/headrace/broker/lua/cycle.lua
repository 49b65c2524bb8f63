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
local worker, want, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[6]
local verdicts, ended, flags, now = {}, {}, 0, nil
local gone_entries, gone_ids, counts = {}, {}, {}
local some_asked = call('HLEN', K.rev) > 0
local some_unique = call('HLEN', K.u) > 0

local function later_by(delay)
  now = now or clock(ARGV[4])
  return digits(now + (tonumber(delay) or 0))
end

local function history(id)
  local text = call('GET', K.t .. id)
  if text then return select(3, cut(text)) or '' end
  local place = call('HGET', K.loc, id)
  if not place then return nil end
  local digit, entry = split(place)
  if digit == 'z' or digit == 'p' then
    text = call('HGET', K.body, id)
    return text and select(3, cut(text)) or ''
  end
  local found = entry_at(digit, entry)
  return found and select(2, fields(found[2])) or ''
end

local function verdict(id, place, outcome)
  local n = history(id)
  if n == nil then return 'gone' end
  return reported(n, place, outcome) and 'dup' or 'stale'
end

local function leave(id, place, outcome, text)
  gone_ids[#gone_ids + 1] = id
  ended[#ended + 1] = id .. ' ' .. place .. ' ' .. outcome
  if some_unique then
    local _, envelope = cut(text)
    local key = envelope and unique_of(envelope)
    if key and call('HGET', K.u, key) == id then call('HDEL', K.u, key) end
  end
end

local enter = {
  completed = function(id, text) call('SET', K.t .. id, text, 'EX', ttl) end,
  failed = function(id, text)
    call('SET', K.t .. id, text)
    call('ZADD', K.dead, later_by(0), id)
  end,
  retrying = function(id, text, delay)
    call('HSET', K.body, id, text)
    call('ZADD', K.later, later_by(delay), id)
    call('HSET', K.loc, id, 'z')
  end,
  parked = function(id, text, key)
    call('HSET', K.body, id, text)
    call('ZADD', K.parked, 0, key .. '\n' .. id)
    call('HSET', K.loc, id, 'p' .. key)
  end,
}
enter.cancelled = enter.completed

local function accept(a, digit, entry)
  local place, id, outcome, text = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 5]
  local entries = gone_entries[digit]
  if not entries then
    entries = {}
    gone_entries[digit] = entries
  end
  entries[#entries + 1] = entry
  if some_asked and call('HDEL', K.rev, id) == 1 and outcome ~= 'completed' then
    outcome = 'cancelled'
    text = outcome .. sub(text, find(text, ' ', 1, true), -1)
  end
  enter[outcome](id, text, ARGV[a + 3])
  if outcome ~= 'retrying' and outcome ~= 'parked' then leave(id, place, outcome, text) end
  local counter = outcome .. ':' .. ARGV[a + 4]
  counts[counter] = (counts[counter] or 0) + 1
end

local function report_all()
  for a = FIRST, #ARGV, STEP do
    local digit, entry = split(ARGV[a])
    if K[digit] and call('XACK', K[digit], GROUP, entry) == 1 then
      accept(a, digit, entry)
    else
      verdicts[#verdicts + 1] = (a - FIRST) / STEP
      verdicts[#verdicts + 1] = verdict(ARGV[a + 1], ARGV[a], ARGV[a + 2])
    end
  end
  for digit, entries in pairs(gone_entries) do call('XDEL', K[digit], unpack(entries)) end
  if #gone_ids > 0 then
    call('HDEL', K.loc, unpack(gone_ids))
    call('XADD', K.journal, 'MAXLEN', '~', ARGV[7], '*', 'e', concat(ended, '\n'))
  end
  for counter, count in pairs(counts) do call('HINCRBY', K.stats, counter, count) end
  if ARGV[5] == '1' and #verdicts > 0 then call('HINCRBY', K.ctl, 'touch', 1) end
end

local claims = {}

-- One suspect a worker at a time, asked here so that lost replies count too.
local function room(digit, slots)
  if digit ~= 's' then return slots end
  local held = redis.pcall('XPENDING', K.s, GROUP, '-', '+', 1, worker)
  return (held.err or #held == 0) and 1 or 0
end

local function claim(digit, slots)
  if call('XLEN', K[digit]) == 0 then return 0 end
  local count = room(digit, slots)
  if count == 0 then return 0 end
  local got = redis.pcall('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', count, 'STREAMS', K[digit], '>')
  if not got then return 0 end
  if got.err then
    flags = flags + 2
    return 0
  end
  local entries = got[1][2]
  for _, entry in ipairs(entries) do
    local at, envelope, n = #claims, fields(entry[2])
    claims[at + 1], claims[at + 2], claims[at + 3], claims[at + 4] = digit, entry[1], envelope, n
  end
  return #entries
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

report_all()
if call('HGET', K.ctl, 'paused') then
  flags = flags + 1
else
  local free = want
  if want > 0 then
    for digit in string.gmatch(ARGV[3], '.') do
      if free > 0 and flags < 2 then free = free - claim(digit, free) end
    end
  end
  if flags < 2 then pass_on(want - free) end
end
return {verdicts, flags, call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or '', claims}
