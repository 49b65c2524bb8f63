#!lua flags=allow-oom
-- enlist: a queue is listed, and the types that a worker knows are published; capped, because clients name queues.
-- keys: queues types
-- ARGV: 1 queue ('' = none) · 2 at most so many queues · 3… type, its description as JSON
-- returns: 1, or 0 if there are too many queues
-- include: base
if ARGV[1] ~= '' and call('SISMEMBER', K.queues, ARGV[1]) == 0 then
  if call('SCARD', K.queues) >= tonumber(ARGV[2]) then return 0 end
  call('SADD', K.queues, ARGV[1])
end
for a = 3, #ARGV, 2 do call('HSET', K.types, ARGV[a], ARGV[a + 1]) end
return 1
