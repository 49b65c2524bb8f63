#!lua flags=allow-oom
-- hand_back: a worker returns tasks it will not finish; nothing is charged but `interruptions`. With `leave` it also signs off once it holds nothing.
-- keys: r s 3 2 1 0 loc later body stats ctl journal rev dead u wake w wd t
-- ARGV: 1 now in ms ('' = server's) · 2 worker · 3 'leave' or '' · 4 retention in s of cancelled · 5 journal cap · 6 at most so many · 7… places, or '*' for all it holds
-- returns: {handed back, 1 if it may hold more}
-- include: base carry place ending
local worker, limit = ARGV[2], tonumber(ARGV[6])
local now = clock(ARGV[1])
local moved = 0

-- idle_ms: since the claim, for no entry is ever claimed twice; so it tells when the attempt began.
local function hand_back(digit, entry, idle_ms)
  local found = entry_at(digit, entry)
  if call('XACK', K[digit], GROUP, entry) ~= 1 then return end
  call('XDEL', K[digit], entry)
  moved = moved + 1
  if not found then return end
  local place, envelope, n = digit .. entry, fields(found[2])
  local _, id = head(envelope)
  if not id then return bury(foreign_id(digit, entry), envelope, n, place, worker, now) end
  local a, f, c, i = counters(n)
  n = extend(n, {a + 1, f, c, i + 1}, line(place, 'interrupted', worker, now, ',"s":' .. digits(now - idle_ms)))
  if call('HGET', K.rev, id) then
    finish('cancelled', id, envelope, n, place, now, ARGV[4])
  else
    call('HSET', K.loc, id, add(c > 0 and 's' or 'r', envelope, n))
  end
end

local function held(digit)
  local rows = redis.pcall('XPENDING', K[digit], GROUP, '-', '+', limit, worker)
  return rows.err and {} or rows
end

if ARGV[7] == '*' then
  for _, digit in ipairs(STREAMS) do
    for _, row in ipairs(held(digit)) do
      if moved < limit then hand_back(digit, row[1], row[3]) end
    end
  end
else
  for a = 7, #ARGV do
    local digit, entry = split(ARGV[a])
    local owner, idle_ms = owner_of(digit, entry)
    if owner then hand_back(digit, entry, idle_ms) end
  end
end

if moved > 0 then push_marker() end
write_journal(ARGV[5])
local rest = 0
for _, digit in ipairs(STREAMS) do
  if #held(digit) > 0 then rest = 1 end
end
if ARGV[3] == 'leave' and rest == 0 then
  for _, digit in ipairs(STREAMS) do redis.pcall('XGROUP', 'DELCONSUMER', K[digit], GROUP, worker) end
  call('HDEL', K.w, worker)
  call('HDEL', K.wd, worker)
end
return {moved, rest}
