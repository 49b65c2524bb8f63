#!lua flags=no-writes
-- depth: how much lies where, in one look.
-- keys: r s 3 2 1 0 loc later parked dead ctl w stats
-- ARGV: none
-- returns: {{digit, length, pending, id of the oldest waiting entry or '', …}, live, delayed, parked, dead, workers, 1 if paused, now ms, next due ms or '', {counter, value, …},
--           {paused since ms, own maxDepth, own rate: nil = none}}
--       pending is '' for a stream without its group: an error, not zero
-- include: base depth rows
local due = call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''
return {
  stream_rows(), call('HLEN', K.loc), call('ZCARD', K.later), call('ZCARD', K.parked), call('ZCARD', K.dead), call('HLEN', K.w),
  call('HEXISTS', K.ctl, 'paused'), digits(clock('')), due, call('HGETALL', K.stats),
  call('HMGET', K.ctl, 'paused', 'max_depth', 'rate'),
}
