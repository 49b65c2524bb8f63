#!lua flags=no-writes
-- demand: what a scaler looks at each second: how much wants to run, and who runs what.
-- keys: r s 3 2 1 0 later parked ctl w drain
-- ARGV: 1 ms from now within which a delayed task counts as due soon
-- returns: {{digit, length, pending, id of the oldest waiting entry or '', …}, delayed, due soon, parked, 1 if paused, now ms, {worker, beat, …}, {worker asked to drain, ms, …}}
--       pending is '' for a stream without its group: an error, not zero
-- include: base depth rows
local now = clock('')
return {
  stream_rows(), call('ZCARD', K.later), call('ZCOUNT', K.later, '-inf', digits(now + tonumber(ARGV[1]))), call('ZCARD', K.parked),
  call('HEXISTS', K.ctl, 'paused'), digits(now), call('HGETALL', K.w), call('HGETALL', K.drain),
}
