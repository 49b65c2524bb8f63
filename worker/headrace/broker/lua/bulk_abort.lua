#!lua flags=allow-oom
-- bulk_abort: a job shall end after the step that it is in; one that has ended stays as it is.
-- keys: bulk
-- ARGV: 1 id
-- returns: 1 if there is such a job
-- include: base
local key = K.bulk .. ':' .. ARGV[1]
if call('EXISTS', key) == 0 then return 0 end
if call('HEXISTS', key, 'ended') == 0 then call('HSET', key, 'abort', '1') end
return 1
