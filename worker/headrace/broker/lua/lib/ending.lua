-- ending: the terminal record, and all that must go in the same breath.
local ended = {}

local function release_unique(envelope, id)
  local key = unique_of(envelope)
  if key and call('HGET', K.u, key) == id then call('HDEL', K.u, key) end
end

-- place: where the task lay, for the journal; ttl in seconds, 0 = kept (the dead letter).
local function finish(state, id, envelope, n, place, now, ttl)
  local text = record(state, envelope, n)
  if state == 'failed' then
    call('SET', K.t .. id, text)
    call('ZADD', K.dead, digits(now), id)
  else
    call('SET', K.t .. id, text, 'EX', ttl)
  end
  call('HDEL', K.loc, id)
  call('HDEL', K.rev, id)
  release_unique(envelope, id)
  call('HINCRBY', K.stats, state, 1)
  ended[#ended + 1] = id .. ' ' .. place .. ' ' .. state
end

local function write_journal(cap)
  if #ended > 0 then call('XADD', K.journal, 'MAXLEN', '~', cap, '*', 'e', concat(ended, '\n')) end
end
