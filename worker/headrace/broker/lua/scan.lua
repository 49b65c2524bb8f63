#!lua flags=no-writes
-- scan: the tasks of a queue from a position on, in a fixed order, as far as a budget goes. What is sure not to be wanted is left out; the caller looks closely.
-- keys: r s 3 2 1 0 loc later body parked dead journal progress t
-- ARGV: 1 sources in order, of: z (later) p (parked) w<digit> (waiting in a stream) c<digit> (claimed) d (dead letters) j (journal)
--       2 source to go on in ('' = the first) · 3 position in it, as this script returned it · 4 as of ms ('' = now): what came to a stream later is left out
--       5 rows wanted · 6 cost allowed: a task costs 1 and 1 for each 4 KiB · 7 since ms (0 = any) · 8 until ms ('' = any): of ended tasks the end counts, else the submission
--       9 states wanted of later and journal, with commas around · 10 '1' = with payloads
--       11, 12 number of texts that the envelope must hold before its payload, and in it; then these; then those that N must hold, in lower case
-- returns: {as of ms, source ('' = all was seen), position, tasks looked at, cost, {{id, what `get` answers}, …}}
-- include: base carry depth
local argv, floor = ARGV, math.floor
local as_of, want, allowed = argv[4], tonumber(argv[5]), tonumber(argv[6])
local since, till, states, payloads = tonumber(argv[7]), argv[8], argv[9], argv[10] == '1'
local words, values, signs = {}, {}, {}
for a = 13, #argv do
  local list = a <= 12 + argv[11] and words or a <= 12 + argv[11] + argv[12] and values or signs
  list[#list + 1] = argv[a]
end
-- How far the clocks of clients, workers and Redis may be apart, where an order by time saves looking.
local SLACK = 300000
local floor_ms, ceiling_ms = since - SLACK, till == '' and '+inf' or digits(till + SLACK)
local rows, looked, cost, at, full = {}, 0, 0, '', false
local FIRST_STEP, STEP, SMALL = 4, 200, 1024

-- fakeredis has no list for a stream that is not there.
local function backwards(...) return call('XREVRANGE', ...) or {} end

-- A text with \u in it may hold anything.
local function holds(text, wanted, start)
  for i = 1, #wanted do
    if not find(text, wanted[i], start, true) and not find(text, '\\u', start, true) then return false end
  end
  return true
end

local PAYLOAD = ',"a":{'
local TAGS, EXPIRES = ',"g":%["[%w_.:/@",-]*"%]', ',"x":%d+'
local BEHIND = {'}(' .. TAGS .. '})$', '}(' .. TAGS .. EXPIRES .. '})$', '}(' .. EXPIRES .. '})$', '}(})$'}

-- The payload is all between the first `,"a":` (no text before it can hold that) and the last of the fields behind it, which begin after its brace.
local function without_payload(envelope)
  local start = #envelope > SMALL and not payloads and find(envelope, PAYLOAD, 1, true)
  if not start then return envelope end
  local tail = sub(envelope, -2 * SMALL)
  for _, form in ipairs(BEHIND) do
    local kept = match(tail, form)
    if kept then return sub(envelope, 1, start - 1) .. kept end
  end
end

-- The counters and the last attempt, without its result.
local function without_past(n)
  local start = match(n, '^.*\n()')
  if not start then return n end
  local last = sub(n, start)
  local result = find(last, ',"r":', 1, true)
  return match(n, '^[^\n]*\n') .. (result and sub(last, 1, result - 1) .. '}' or last)
end

-- The client's time, or the worker's: no text before it can hold the pattern.
local function is_timely(envelope, n, ended)
  local ms = ended and match(n, '"e":(%d+)', match(n, '^.*\n()')) or not ended and match(envelope, '"c":(%d+)')
  return tonumber(ms or 0) >= since and (till == '' or tonumber(ms or 0) <= tonumber(till))
end

-- Counts a task; true if it may be wanted.
local function look(position, envelope, n, ended)
  at, looked, cost = position, looked + 1, cost + 1 + floor((#envelope + #n) / 4096)
  full = cost >= allowed
  return holds(envelope, words, 1) and (#values == 0 or holds(envelope, values, find(envelope, PAYLOAD, 1, true) or 1))
    and (#signs == 0 or holds(string.lower(n), signs, 1) or find(n, '"o":"crashed"', 1, true))
    and ((since == 0 and till == '') or is_timely(envelope, n, ended))
end

-- What is no task after all.
local function skip(position)
  at, cost = position, cost + 1
  full = cost >= allowed
end

local function put(row)
  rows[#rows + 1] = row
  full = full or #rows >= want
end

local function put_record(id, place, state, envelope, n, due)
  put({id, place, record(state, without_payload(envelope), without_past(n)), due})
end

local function stream_row(digit, entry, position, worker, idle)
  local envelope, n = fields(entry[2])
  if not look(position, envelope, n) then return end
  local _, id = head(envelope)
  -- What lies here and is no task's place was written by something foreign.
  if not id or call('HGET', K.loc, id) ~= digit .. entry[1] then return end
  local since_ms = worker and digits(clock('') - idle)
  local progress = worker and (call('HGET', K.progress .. worker, id) or '')
  put({id, digit .. entry[1], without_payload(envelope), without_past(n), worker, since_ms, progress})
end

-- Entries are read a few at a time, more as long as they are small.
local function steps(read)
  local step = FIRST_STEP
  while not full do
    local before = cost
    if not read(step) then return end
    if cost - before <= 2 * step then step = math.min(STEP, step * 2) end
  end
end

local function waiting(digit, position)
  local info = call('EXISTS', K[digit]) == 1 and group(K[digit])
  local claimed_up_to = '(' .. (info and info['last-delivered-id'] or '0-0')
  local from = position ~= '' and '(' .. position or as_of
  steps(function(step)
    local entries = backwards(K[digit], from, claimed_up_to, 'COUNT', step)
    for _, entry in ipairs(entries) do
      if since > 0 and tonumber(match(entry[1], '^%d+')) < floor_ms then return false end
      stream_row(digit, entry, entry[1])
      if full then return false end
      from = '(' .. entry[1]
    end
    return #entries == step
  end)
end

local function claimed(digit, position)
  local from = position ~= '' and '(' .. position or '-'
  steps(function(step)
    local held = redis.pcall('XPENDING', K[digit], GROUP, from, as_of .. '-18446744073709551615', step)
    if held.err then return false end
    for _, row in ipairs(held) do
      local entry = entry_at(digit, row[1])
      if entry then stream_row(digit, entry, row[1], row[2], row[3]) else skip(row[1]) end
      if full then return false end
      from = '(' .. row[1]
    end
    return #held == step
  end)
end

-- Redis orders equal scores by bytes, Lua's < by the server's language.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- How many members come before (score, member), whether that is still there or not.
local function rank(key, position, including)
  local score, member = match(position, '^(%S+) (.*)$')
  local low = call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', key, score, score)
  while low < high do
    local middle = floor((low + high) / 2)
    local there = call('ZRANGE', key, middle, middle)[1]
    if before(there, member) or (including and there == member) then low = middle + 1 else high = middle end
  end
  return low
end

local function record_row(id, position, place, text, due)
  local state, envelope, n = cut(text)
  if not state then state, envelope, n = place == 'z' and 'scheduled' or place == 'p' and 'parked' or 'failed', text, '' end
  local wanted = place ~= 'z' or find(states, ',' .. state .. ',', 1, true)
  if look(position, envelope, n, place == 't') and wanted then put_record(id, place, state, envelope, n, due) end
end

local function later(position)
  local start = position == '' and 0 or rank(K.later, position, true)
  steps(function(step)
    local found = call('ZRANGE', K.later, start, start + step - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local id, due = found[i], found[i + 1]
      record_row(id, due .. ' ' .. id, 'z', call('HGET', K.body, id) or '', due)
      if full then return false end
    end
    start = start + step
    return #found == 2 * step
  end)
end

local function parked(position)
  local from = position == '' and '-' or position
  steps(function(step)
    local members = call('ZRANGEBYLEX', K.parked, from, '+', 'LIMIT', 0, step)
    for _, member in ipairs(members) do
      local id = match(member, '([^\n]*)$')
      from = '(' .. member
      record_row(id, from, 'p', call('HGET', K.body, id) or '')
      if full then return false end
    end
    return #members == step
  end)
end

local function dead(position)
  local left = position ~= '' and rank(K.dead, position) or call('ZCOUNT', K.dead, '-inf', ceiling_ms)
  steps(function(step)
    local first = math.max(0, left - step)
    local found = left > 0 and call('ZRANGE', K.dead, first, left - 1, 'WITHSCORES') or {}
    for i = #found - 1, 1, -2 do
      local id, died = found[i], found[i + 1]
      if since > 0 and tonumber(died) < floor_ms then return false end
      local text = call('GET', K.t .. id)
      local here = died .. ' ' .. id
      if text then record_row(id, here, 't', text) else skip(here) end
      if full then return false end
    end
    left = first
    return left > 0
  end)
end

-- A line of the journal counts only if the record is still the one that it tells of.
local function ended_row(position, text, id, place, state)
  local is, envelope, n = cut(text)
  local start = is == state and match(n, '^.*\n()')
  if not start or find(n, '{"p":"' .. place .. '"', start, true) ~= start then return skip(position) end
  if look(position, envelope, n, true) then put_record(id, 't', state, envelope, n) end
end

local function journal_entry(entry, lines_left)
  local lines = {}
  for each in string.gmatch(entry[2][2] or '', '[^\n]+') do lines[#lines + 1] = each end
  for i = math.min(#lines, lines_left), 1, -1 do
    local id, place, state = match(lines[i], '^(%S+) (%S*) (%l+) ?%S*$')
    if id and state ~= 'failed' and find(states, ',' .. state .. ',', 1, true) then
      local text, here = call('GET', K.t .. id), entry[1] .. ' ' .. i
      if text then ended_row(here, text, id, place, state) else skip(here) end
      if full then return end
    end
  end
end

local function journal(position)
  local from, line = match(position, '^(%S+) (%d+)$')
  local lines_left = line and line - 1 or math.huge
  -- An entry without a line left is done; else a small budget would come back to it for ever.
  if lines_left == 0 then from, lines_left = '(' .. from, math.huge end
  from = from or (till ~= '' and ceiling_ms or '+')
  steps(function(step)
    local entries = backwards(K.journal, from, '-', 'COUNT', step)
    for _, entry in ipairs(entries) do
      if since > 0 and tonumber(match(entry[1], '^%d+')) < floor_ms then return false end
      journal_entry(entry, lines_left)
      if full then return false end
      skip(entry[1] .. ' 1')
      if full then return false end
      from, lines_left = '(' .. entry[1], math.huge
    end
    return #entries == step
  end)
end

-- Nothing that is there now may count as later, also where the clock was set back.
if as_of == '' then
  local newest = clock('')
  for _, digit in ipairs(STREAMS) do
    local entry = backwards(K[digit], '+', '-', 'COUNT', 1)[1]
    if entry then newest = math.max(newest, tonumber(match(entry[1], '^%d+'))) end
  end
  as_of = digits(newest)
end

local READERS = {w = waiting, c = claimed, z = later, p = parked, d = dead, j = journal}
local started = argv[2] == ''
for source in string.gmatch(argv[1], '%S+') do
  if started or source == argv[2] then
    local kind, digit, position = sub(source, 1, 1), sub(source, 2, 2), not started and argv[3] or ''
    started, at = true, position
    if digit ~= '' then READERS[kind](digit, position) else READERS[kind](position) end
    if full then return {as_of, source, at, looked, cost, rows} end
  end
end
return {as_of, '', '', looked, cost, rows}
