#!lua
-- bulk_start: a job on many tasks begins; as many are kept as may be, the oldest that ended go first.
-- keys: bulk
-- ARGV: 1 now in ms ('' = server's) · 2 id · 3 order, JSON · 4 owner · 5 lease in ms · 6 at most so many run · 7 at most so many are kept · 8 kept for s
-- returns: when it began in ms, or '' if too many run
-- include: base
local now = clock(ARGV[1])
local running, ended = 0, {}
for _, id in ipairs(call('ZRANGE', K.bulk, 0, -1)) do
  local key = K.bulk .. ':' .. id
  if call('HEXISTS', key, 'ended') == 1 then
    ended[#ended + 1] = id
  elseif call('EXISTS', key) == 1 then
    running = running + 1
  else
    call('ZREM', K.bulk, id)
  end
end
if running >= tonumber(ARGV[6]) then return '' end
for i = 1, running + #ended + 1 - tonumber(ARGV[7]) do
  call('DEL', K.bulk .. ':' .. ended[i])
  call('ZREM', K.bulk, ended[i])
end
local key = K.bulk .. ':' .. ARGV[2]
call('HSET', key, 'order', ARGV[3], 'begun', digits(now), 'owner', ARGV[4], 'until', digits(now + ARGV[5]))
call('EXPIRE', key, ARGV[8])
call('ZADD', K.bulk, digits(now), ARGV[2])
call('EXPIRE', K.bulk, ARGV[8])
return digits(now)
