#!lua flags=allow-oom
-- reclaim: the tasks of a worker that died go on: 1st crash to the suspects, then to them after a backoff, at the bound to the dead letter.
-- keys: r s 3 2 1 0 loc later body stats ctl journal rev dead u wake w wd t
-- ARGV: 1 now in ms ('' = server's) · 2 worker · 3 the beat seen ('' = none was seen, '*' = proven dead) · 4 at most so many · 5 nonce, unique
--       6 cause, a JSON string · 7 max_crashes · 8 backoff in ms · 9 retention in s of cancelled · 10 journal cap
-- returns: {what, moved}: what = alive (its beat changed) marked (no beat yet: a mark was left that must now stay unchanged) moved (call again) done
-- include: base carry place ending
local worker, seen, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local beat = call('HGET', K.w, worker) or ''
if seen ~= '*' and seen ~= beat then return {'alive', 0} end
if seen == '' then
  call('HSET', K.w, worker, '?' .. ARGV[5])
  return {'marked', 0}
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

local function hand_on(digit, entry, envelope, n)
  local place = digit .. entry
  local _, id = head(envelope)
  if not id then return bury(foreign_id(digit, entry), envelope, n, place, worker, now) end
  local a, f, c, i = counters(n)
  n = extend(n, {a + 1, f, c + 1, i}, line(place, 'crashed', worker, now, ',"cause":' .. ARGV[6]))
  if call('HGET', K.rev, id) then
    finish('cancelled', id, envelope, n, place, now, ARGV[9])
  elseif c + 1 >= tonumber(ARGV[7]) then
    finish('failed', id, envelope, n, place, now, 0)
  elseif c == 0 then
    call('HSET', K.loc, id, add('s', envelope, n))
  else
    delay_task(id, envelope, n)
  end
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
      if found then hand_on(digit, entry, fields(found[2])) end
      moved = moved + 1
    end
  end
end

if moved > 0 then push_marker() end
write_journal(ARGV[10])
if rest then return {'moved', moved} end
for _, digit in ipairs(STREAMS) do redis.pcall('XGROUP', 'DELCONSUMER', K[digit], GROUP, worker) end
call('HDEL', K.w, worker)
call('HDEL', K.wd, worker)
return {'done', moved}
