-- body: a task that lay in `later` or `parked` goes to its stream: the suspects' if it has crashed, else its priority's.
local function resume(id, now)
  local text = call('HGET', K.body, id)
  call('HDEL', K.body, id)
  local _, envelope, n = cut(text or '')
  local priority, own = head(envelope or '')
  if own ~= id then return bury(id, envelope or '', n or '', '', '', now) end
  local _, _, crashes = counters(n)
  call('HSET', K.loc, id, add(crashes > 0 and 's' or priority, envelope, n))
end
