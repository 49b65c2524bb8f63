#!lua flags=allow-oom
-- purge: dead letters are deleted: the ones named, or the oldest beyond an age or a number.
-- keys: dead t
-- ARGV: 1 died before this ms · 2 keep at most so many · 3 at most so many a call · 4… ids (none = by age and number)
-- returns: deleted
-- include: base
local ids = {}
if #ARGV > 3 then
  for a = 4, #ARGV do ids[#ids + 1] = ARGV[a] end
else
  local limit = tonumber(ARGV[3])
  ids = call('ZRANGEBYSCORE', K.dead, '-inf', '(' .. ARGV[1], 'LIMIT', 0, limit)
  local over = math.min(limit, call('ZCARD', K.dead) - tonumber(ARGV[2]))
  if over > #ids then ids = call('ZRANGE', K.dead, 0, over - 1) end
end
local deleted = 0
for _, id in ipairs(ids) do
  if call('ZREM', K.dead, id) == 1 then deleted = deleted + call('DEL', K.t .. id) end
end
return deleted
