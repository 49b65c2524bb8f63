#!lua flags=allow-oom
-- drain: workers are asked to claim no more, or asked no longer. Each learns it with its next beat, and answers with the one after.
-- keys: w drain
-- ARGV: 1 'ask' or 'release' · 2 now in ms ('' = server's) · 3… workers
-- returns: how many that changed. Only who beats is asked, so nothing is left of those that are gone.
-- Kept with the time is the counter of the beat before: only a later one can answer.
-- include: base
local changed = 0
for at = 3, #ARGV do
  local worker = ARGV[at]
  if ARGV[1] == 'release' then
    changed = changed + call('HDEL', K.drain, worker)
  else
    local beat = call('HGET', K.w, worker)
    if beat then changed = changed + call('HSETNX', K.drain, worker, digits(clock(ARGV[2])) .. ' ' .. (string.match(beat, '^%d+') or '-1')) end
  end
end
return changed
