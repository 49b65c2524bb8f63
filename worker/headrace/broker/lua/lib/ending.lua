-- ending: the terminal record, and all that must go in the same breath.
local ended = {}

local function release_unique(envelope, id)
  local key = unique_of(envelope)
  if key and call('HGET', K.u, key) == id then call('HDEL', K.u, key) end
end

-- One line of N. A worker's name is a consumer's name, which anybody may have chosen.
local function line(place, outcome, worker, now, more)
  worker = string.gsub(worker, '[%c"\\]', '?')
  return '{"p":"' .. place .. '","o":"' .. outcome .. '","w":"' .. worker .. '","e":' .. digits(now) .. more .. '}'
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
  ended[#ended + 1] = id .. ' ' .. place .. ' ' .. state .. ' ' .. type_of(envelope)
end

-- An entry without a readable head (written by something foreign) gets an id made of its place, in the form of a UUID.
local function foreign_id(digit, entry)
  local ms, seq = match(entry, '^(%d+)-(%d+)$')
  local hex = string.format('%s%013.0f', digit == 'r' and 'a' or digit == 's' and 'b' or digit, tonumber(ms))
  hex = hex .. string.rep('0', 18 - #seq) .. sub(seq, -18)
  local uuid = concat({sub(hex, 1, 8), sub(hex, 9, 12), sub(hex, 13, 16), sub(hex, 17, 20), sub(hex, 21, 32)}, '-')
  local queue = match(K.loc, '{[^/]+/([^}]+)}')
  return queue == 'default' and uuid or queue .. '.' .. uuid
end

-- What cannot be read (something foreign wrote it) goes to the dead letter, not round and round.
local function bury(id, envelope, n, place, worker, now)
  local a, f, c, i = counters(n)
  local why = ',"x":{"type":"MalformedTask","message":"its envelope cannot be read","reason":"malformed"}'
  if place ~= '' then a = a + 1 end
  n = extend(n, {a, f + 1, c, i}, line(place, 'failed', worker, now, why))
  finish('failed', id, envelope, n, place, now, 0)
end

-- Without a cap the next report trims.
local function write_journal(cap)
  if #ended == 0 then return end
  if cap then
    call('XADD', K.journal, 'MAXLEN', '~', cap, '*', 'e', concat(ended, '\n'))
  else
    call('XADD', K.journal, '*', 'e', concat(ended, '\n'))
  end
end
