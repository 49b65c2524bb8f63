#!lua flags=allow-oom
-- reclaim: the tasks of a worker that died go on: 1st crash to the suspects, then to them after a backoff, at the bound to the dead letter.
-- keys: r s 3 2 1 0 loc later body stats ctl journal rev dead u wake w wd t
-- ARGV: 1 now in ms ('' = server's) · 2 worker · 3 the beat seen ('' = none was seen, '*' = proven dead) · 4 at most so many · 5 nonce, unique
--       6 cause, a JSON string · 7 max_crashes · 8 backoff in ms · 9 retention in s of cancelled · 10 journal cap
-- returns: {what, taken, handed on, buried}: taken = how many entries; handed on = ids of those that live on; buried = flat: id, type, crashes of each
--       dead letter ('' for a type that cannot be read);
--       what = alive (its beat changed) marked (no beat yet: a mark was left that must now stay unchanged) moved (call again) done
-- include: base carry place ending
local worker, seen, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local beat = call('HGET', K.w, worker) or ''
if seen ~= '*' and seen ~= beat then return {'alive', 0, {}, {}} end
if seen == '' then
  call('HSET', K.w, worker, '?' .. ARGV[5])
  return {'marked', 0, {}, {}}
end

local now = clock(ARGV[1])
local seed = 7
for at = 1, #ARGV[5] do seed = (seed * 31 + string.byte(ARGV[5], at)) % 2147483647 end
math.randomseed(seed)

local function delay_task(id, envelope, n)
  call('HSET', K.body, id, record('retrying', envelope, n))
  call('ZADD', K.later, digits(now + math.floor(tonumber(ARGV[8]) * (0.5 + math.random()))), id)
  call('HSET', K.loc, id, 'z')
end

local handed_on, buried = {}, {}
local function note_buried(id, envelope, crashes)
  local start = match(envelope, '^{"v":%d+,"p":[0-3],"i":"[^"]+"()')
  local rest = start and sub(envelope, start) or ''
  local type = match(rest, '^,"t":"([%w_.:%-]+)"') or match(rest, '^,"u":"[^"]+","t":"([%w_.:%-]+)"') or ''
  buried[#buried + 1], buried[#buried + 2], buried[#buried + 3] = id, type, crashes
end

-- idle_ms: since the claim, for no entry is ever claimed twice; so it tells when the attempt began.
local function hand_on(digit, entry, idle_ms, envelope, n)
  local place = digit .. entry
  local _, id = head(envelope)
  local a, f, c, i = counters(n)
  if not id then
    id = foreign_id(digit, entry)
    note_buried(id, '', c)
    return bury(id, envelope, n, place, worker, now)
  end
  local more = ',"s":' .. digits(now - idle_ms) .. ',"cause":' .. ARGV[6]
  n = extend(n, {a + 1, f, c + 1, i}, line(place, 'crashed', worker, now, more))
  if call('HGET', K.rev, id) then
    return finish('cancelled', id, envelope, n, place, now, ARGV[9])
  elseif c + 1 >= tonumber(ARGV[7]) then
    note_buried(id, envelope, c + 1)
    return finish('failed', id, envelope, n, place, now, 0)
  elseif c == 0 then
    call('HSET', K.loc, id, add('s', envelope, n))
  else
    delay_task(id, envelope, n)
  end
  handed_on[#handed_on + 1] = id
end

local moved, rest = 0, false
for _, digit in ipairs(STREAMS) do
  local rows = redis.pcall('XPENDING', K[digit], GROUP, '-', '+', limit - moved + 1, worker)
  for at, row in ipairs(rows.err and {} or rows) do
    if moved == limit then
      rest = true
      break
    end
    local entry = row[1]
    local found = entry_at(digit, entry)
    if call('XACK', K[digit], GROUP, entry) == 1 then
      call('XDEL', K[digit], entry)
      if found then hand_on(digit, entry, row[3], fields(found[2])) end
      moved = moved + 1
    end
  end
end

if moved > 0 then push_marker() end
write_journal(ARGV[10])
if rest then return {'moved', moved, handed_on, buried} end
for _, digit in ipairs(STREAMS) do redis.pcall('XGROUP', 'DELCONSUMER', K[digit], GROUP, worker) end
call('HDEL', K.w, worker)
call('HDEL', K.wd, worker)
return {'done', moved, handed_on, buried}
