#!lua flags=no-writes
-- workers: whoever beats or holds something: a worker that died before its first beat is only seen as a consumer.
-- keys: r s 3 2 1 0 w wd
-- ARGV: none
-- returns: {worker, beat or '', description or '', entries held, …}
-- include: base
local held = {}
for _, digit in ipairs(STREAMS) do
  local rows = redis.pcall('XINFO', 'CONSUMERS', K[digit], GROUP)
  for _, row in ipairs(rows.err and {} or rows) do
    local info = {}
    for i = 1, #row, 2 do info[row[i]] = row[i + 1] end
    held[info.name] = (held[info.name] or 0) + info.pending
  end
end
local beats = call('HGETALL', K.w)
local seen, answer = {}, {}
for i = 1, #beats, 2 do seen[beats[i]] = beats[i + 1] end
for name in pairs(held) do seen[name] = seen[name] or '' end
for name, beat in pairs(seen) do
  local at = #answer
  answer[at + 1], answer[at + 2] = name, beat
  answer[at + 3], answer[at + 4] = call('HGET', K.wd, name) or '', held[name] or 0
end
return answer
