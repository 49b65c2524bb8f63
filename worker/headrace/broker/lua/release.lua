#!lua flags=allow-oom
-- release: parked tasks go back to their stream, because a worker is here that knows their type or their envelope's version.
-- keys: s 3 2 1 0 loc body parked stats ctl journal rev dead u wake t
-- ARGV: 1 at most so many · 2… index keys: a type, or !v<version>
-- returns: released
-- include: base carry place ending body
if call('EXISTS', K.parked) == 0 then return 0 end
local room, released, now = tonumber(ARGV[1]), 0, clock('')

local function release(key, member)
  local id = sub(member, #key + 2)
  -- A hostile type may hold a line break; its tasks only look as if they were parked under this key.
  if call('HGET', K.loc, id) ~= 'p' .. key then return end
  call('ZREM', K.parked, member)
  resume(id, now)
  released = released + 1
end

for a = 2, #ARGV do
  local key = ARGV[a]
  if released < room then
    local members = call('ZRANGEBYLEX', K.parked, '[' .. key .. '\n', '(' .. key .. '\v', 'LIMIT', 0, room - released)
    for _, member in ipairs(members) do release(key, member) end
  end
end
if released > 0 then push_marker() end
write_journal()
return released
