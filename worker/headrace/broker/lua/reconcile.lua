#!lua flags=no-writes
-- reconcile: all entries a worker holds according to Redis; the worker compares them with what it runs.
-- keys: r s 3 2 1 0
-- ARGV: 1 worker · 2 at most so many a stream
-- returns: {digit, entry id, envelope, N, …}; an entry that was deleted under its owner has an empty envelope
-- include: base carry
local held = {}
for _, digit in ipairs(STREAMS) do
  for _, row in ipairs(call('XPENDING', K[digit], GROUP, '-', '+', ARGV[2], ARGV[1])) do
    local found = entry_at(digit, row[1])
    local at, envelope, n = #held, fields(found and found[2] or {})
    held[at + 1], held[at + 2], held[at + 3], held[at + 4] = digit, row[1], envelope, n
  end
end
return held
