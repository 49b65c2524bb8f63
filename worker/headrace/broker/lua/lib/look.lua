-- look: where a task lies, and what lies there.
-- returns: {} unknown · {'t', record} ended · {'z', record, due ms} · {'p', record} · {place, envelope, N} waiting · {place, envelope, N, worker, claimed ms, progress or ''} running
local function look(id)
  local text = call('GET', K.t .. id)
  if text then return {'t', text} end
  local place = call('HGET', K.loc, id)
  if not place then return {} end
  local digit, entry = split(place)
  if digit == 'z' then return {'z', call('HGET', K.body, id) or '', call('ZSCORE', K.later, id) or ''} end
  if digit == 'p' then return {'p', call('HGET', K.body, id) or ''} end
  local found = entry_at(digit, entry)
  local envelope, n = fields(found and found[2] or {})
  local owner, idle = owner_of(digit, entry)
  if not owner then return {place, envelope, n} end
  return {place, envelope, n, owner, digits(clock('') - idle), call('HGET', K.progress .. owner, id) or ''}
end
