#!lua flags=allow-oom
-- bulk_take: a process takes over a job whose owner is gone: one that has not ended and whose lease is over. By its id it gets
-- its own again, also one that has ended: it may not have heard of that. `term` counts the owners after the first.
-- keys: bulk
-- ARGV: 1 now in ms ('' = server's) · 2 owner · 3 lease in ms · 4 id, which may be its own already ('' = any whose lease is over)
-- returns: its id, or ''
-- include: base
local now = clock(ARGV[1])
for _, id in ipairs(ARGV[4] ~= '' and {ARGV[4]} or call('ZRANGE', K.bulk, 0, -1)) do
  local key = K.bulk .. ':' .. id
  local seen = call('HMGET', key, 'begun', 'ended', 'owner', 'until')
  local own = ARGV[4] ~= '' and seen[3] == ARGV[2]
  if seen[1] and (own or not seen[2] and tonumber(seen[4]) <= now) then
    if seen[3] ~= ARGV[2] then call('HINCRBY', key, 'term', 1) end
    call('HSET', key, 'owner', ARGV[2], 'until', digits(now + ARGV[3]))
    return id
  end
end
return ''
