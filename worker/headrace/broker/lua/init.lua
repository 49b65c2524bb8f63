#!lua flags=allow-oom
-- init: the streams and their groups exist, from the first entry on ($ would skip what was submitted before any worker came). Repeatable.
-- keys: r s 3 2 1 0 ctl wake
-- ARGV: 1 the server's run_id ('' = unknown) · 2 now in ms ('' = server's)
-- returns: {epoch, 1 if paused}: the epoch grows with every new run_id, so that a fencing token (epoch, attempt) never repeats after lost writes
-- include: base place
for _, digit in ipairs(STREAMS) do
  local made = redis.pcall('XGROUP', 'CREATE', K[digit], GROUP, '0', 'MKSTREAM')
  if made.err and not find(tostring(made.err), 'BUSYGROUP', 1, true) then return made end
  -- What a lost group had handed out waits again.
  if not made.err and call('XLEN', K[digit]) > 0 then push_marker() end
end
local epoch = tonumber(call('HGET', K.ctl, 'epoch') or 0)
if epoch == 0 or (ARGV[1] ~= '' and call('HGET', K.ctl, 'run_id') ~= ARGV[1]) then
  epoch = math.max(epoch + 1, math.floor(clock(ARGV[2]) / 1000))
  call('HSET', K.ctl, 'epoch', digits(epoch), 'run_id', ARGV[1])
end
return {epoch, call('HEXISTS', K.ctl, 'paused')}
