#!lua flags=allow-oom
-- beat: a worker shows that it lives, and learns what it is asked to cancel, whether to drain, and what waits longest.
-- keys: 3 2 1 0 later ctl rev w wd drain
-- ARGV: 1 worker · 2 its own counter and what it says with it (demand.py) · 3 its description, JSON ('' = unchanged)
-- returns: {1 if paused, next due ms or '', {ids to cancel}, {digit, id of its oldest waiting entry, …}, server's now in ms, 1 if it shall claim no more}
-- include: base depth
local worker = ARGV[1]
call('HSET', K.w, worker, ARGV[2])
if ARGV[3] ~= '' then call('HSET', K.wd, worker, ARGV[3]) end

local asked = {}
if call('HLEN', K.rev) > 0 then
  local rows = call('HGETALL', K.rev)
  for i = 1, #rows, 2 do
    if rows[i + 1] == worker then asked[#asked + 1] = rows[i] end
  end
end

local oldest = {}
for _, digit in ipairs({'3', '2', '1', '0'}) do
  local info = call('XLEN', K[digit]) > 0 and group(K[digit])
  local entry = info and call('XRANGE', K[digit], '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
  if entry then
    oldest[#oldest + 1] = digit
    oldest[#oldest + 1] = entry[1]
  end
end
local due = call('ZRANGE', K.later, 0, 0, 'WITHSCORES')[2] or ''
return {call('HEXISTS', K.ctl, 'paused'), due, asked, oldest, digits(clock('')), call('HEXISTS', K.drain, worker)}
