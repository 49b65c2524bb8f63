#!lua flags=allow-oom
-- audit: a change is written down; at full memory too, because the stream is capped.
-- keys: audit
-- ARGV: 1 keep at most about so many · 2 the entry as JSON
-- returns: the id of the entry
return redis.call('XADD', K.audit, 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[2])
