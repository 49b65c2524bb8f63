#!lua flags=no-writes
-- reconcile: all entries a worker holds according to Redis; the worker compares them with what it runs.
-- keys: r s 3 2 1 0
-- ARGV: 1 worker · 2 at most so many a stream · 3… places it knows
-- returns: {{place, …} of those known, {place, envelope, N, …} of the others}; an entry deleted under its owner has an empty envelope
-- include: base carry
local known, places, others = {}, {}, {}
for a = 3, #ARGV do known[ARGV[a]] = true end
for _, digit in ipairs(STREAMS) do
  for _, row in ipairs(call('XPENDING', K[digit], GROUP, '-', '+', ARGV[2], ARGV[1])) do
    local place = digit .. row[1]
    if known[place] then
      places[#places + 1] = place
    else
      local found = entry_at(digit, row[1])
      local at, envelope, n = #others, fields(found and found[2] or {})
      others[at + 1], others[at + 2], others[at + 3] = place, envelope, n
    end
  end
end
return {places, others}
