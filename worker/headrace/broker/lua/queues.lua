#!lua flags=no-writes
-- queues: the names of a namespace's queues.
-- keys: queues
-- ARGV: none
-- returns: {name, …}
-- include: base
return call('SMEMBERS', K.queues)
