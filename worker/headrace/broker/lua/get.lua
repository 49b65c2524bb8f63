#!lua flags=no-writes
-- get: where a task lies, and what lies there.
-- keys: r s 3 2 1 0 loc later body progress t
-- ARGV: 1 id
-- returns: as lib/look.lua says
-- include: base carry look
return look(ARGV[1])
