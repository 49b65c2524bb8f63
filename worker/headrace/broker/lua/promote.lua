#!lua flags=allow-oom
-- promote: due tasks, or the ones named, go from `later` into their stream. Any number of promoters at once.
-- keys: s 3 2 1 0 loc later body ctl wake
-- ARGV: 1 now in ms ('' = server's) · 2 at most so many · 3… ids to promote now, whatever their due time (none = all that are due)
-- returns: {promoted, next due ms or ''}
-- include: base carry place
local ids = {}
if #ARGV > 2 then
  for a = 3, #ARGV do
    if call('ZSCORE', K.later, ARGV[a]) then ids[#ids + 1] = ARGV[a] end
  end
else
  ids = call('ZRANGEBYSCORE', K.later, '-inf', digits(clock(ARGV[1])), 'LIMIT', 0, ARGV[2])
end

for _, id in ipairs(ids) do
  local _, envelope, n = cut(call('HGET', K.body, id) or '')
  if envelope then
    local _, _, crashes = counters(n)
    call('HSET', K.loc, id, add(crashes > 0 and 's' or head(envelope) or '0', envelope, n))
  end
  call('ZREM', K.later, id)
  call('HDEL', K.body, id)
end
if #ids > 0 then push_marker() end
return {#ids, call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''}
