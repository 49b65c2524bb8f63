#!lua flags=allow-oom
-- cancel: a waiting task ends at once; a running one is asked of its worker, or with force ended under it (its report is then stale).
-- keys: r s 3 2 1 0 loc later body parked stats ctl journal rev dead u t
-- ARGV: 1 now in ms ('' = server's) · 2 id · 3 '1' = force, 'w' = only if it waits · 4 retention in s · 5 journal cap
-- returns: cancelled · asked · processing (it does not wait) · unknown · the terminal state it already has
-- include: base carry ending
local id = ARGV[2]
local now = clock(ARGV[1])

local function finish_cancelled(envelope, n, place)
  local a, f, c, i = counters(n)
  if place ~= '' then a = a + 1 end
  n = extend(n, {a, f, c, i}, line(place, 'cancelled', '', now, ''))
  finish('cancelled', id, envelope, n, place, now, ARGV[4])
  write_journal(ARGV[5])
  return 'cancelled'
end

local place = call('HGET', K.loc, id)
if not place then
  local text = call('GET', K.t .. id)
  return text and cut(text) or 'unknown'
end

local digit, entry = split(place)
if digit == 'z' or digit == 'p' then
  local _, envelope, n = cut(call('HGET', K.body, id) or '')
  if digit == 'z' then call('ZREM', K.later, id) else call('ZREM', K.parked, entry .. '\n' .. id) end
  call('HDEL', K.body, id)
  return finish_cancelled(envelope or '', n or '', '')
end

local found = entry_at(digit, entry)
local envelope, n = fields(found and found[2] or {})
local owner = owner_of(digit, entry)
if owner and ARGV[3] == 'w' then return 'processing' end
if owner and ARGV[3] ~= '1' then
  call('HSET', K.rev, id, owner)
  return 'asked'
end
-- XACK too: XDEL alone of a pending entry would make depth negative.
if owner then call('XACK', K[digit], GROUP, entry) end
if found then call('XDEL', K[digit], entry) end
return finish_cancelled(envelope, n, owner and place or '')
