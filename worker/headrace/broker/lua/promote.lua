#!lua flags=allow-oom
-- promote: due tasks, or the ones named, go from `later` into their stream. Any number of promoters at once.
-- keys: s 3 2 1 0 loc later body stats ctl journal rev dead u wake t
-- ARGV: 1 now in ms ('' = server's) · 2 at most so many · 3… ids to promote now, whatever their due time (none = all that are due)
-- returns: {promoted, next due ms or ''}
-- include: base carry place ending body
local now = clock(ARGV[1])
local ids, moved = {}, 0
if #ARGV > 2 then
  for a = 3, #ARGV do ids[#ids + 1] = ARGV[a] end
else
  ids = call('ZRANGEBYSCORE', K.later, '-inf', digits(now), 'LIMIT', 0, ARGV[2])
end

for _, id in ipairs(ids) do
  if call('ZREM', K.later, id) == 1 then
    resume(id, now)
    moved = moved + 1
  end
end
if moved > 0 then push_marker() end
write_journal()
return {moved, call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''}
