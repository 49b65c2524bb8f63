#!lua flags=no-writes
-- types: all that workers published of their types.
-- keys: types
-- ARGV: none
-- returns: {field, description, …}: publish.lua says what the fields are
-- include: base
return call('HGETALL', K.types)
