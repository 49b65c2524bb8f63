#!lua flags=no-writes
-- find: as get, for many tasks.
-- keys: r s 3 2 1 0 loc later body progress t
-- ARGV: ids
-- returns: what get returns, for each
-- include: base carry look
local seen = {}
for a = 1, #ARGV do seen[a] = look(ARGV[a]) end
return seen
