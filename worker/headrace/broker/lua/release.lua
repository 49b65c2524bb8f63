#!lua flags=allow-oom
-- release: parked tasks go back to their stream, because a worker is here that knows their type or their envelope's version.
-- keys: s 3 2 1 0 loc body parked ctl wake
-- ARGV: 1 at most so many · 2… index keys: a type, or !v<version>
-- returns: released
-- include: base carry place
local left_over, released = tonumber(ARGV[1]), 0
for a = 2, #ARGV do
  local key = ARGV[a]
  local members = {}
  if left_over > 0 then members = call('ZRANGEBYLEX', K.parked, '[' .. key .. '\n', '(' .. key .. '\v', 'LIMIT', 0, left_over) end
  for _, member in ipairs(members) do
    local id = sub(member, #key + 2)
    local _, envelope, n = cut(call('HGET', K.body, id) or '')
    if envelope then
      local _, _, crashes = counters(n)
      call('HSET', K.loc, id, add(crashes > 0 and 's' or head(envelope) or '0', envelope, n))
    end
    call('HDEL', K.body, id)
    call('ZREM', K.parked, member)
    released = released + 1
    left_over = left_over - 1
  end
end
if released > 0 then push_marker() end
return released
