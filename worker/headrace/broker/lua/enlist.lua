#!lua flags=allow-oom
-- enlist: a queue is listed; capped, because clients name queues.
-- keys: queues
-- ARGV: 1 queue · 2 at most so many queues
-- returns: 1, or 0 if there are too many queues
-- include: base
if call('SISMEMBER', K.queues, ARGV[1]) == 0 then
  if call('SCARD', K.queues) >= tonumber(ARGV[2]) then return 0 end
  call('SADD', K.queues, ARGV[1])
end
return 1
