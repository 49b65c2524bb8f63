#!lua
-- replay: a dead task starts over under its own id; failures and crashes go back to 0, attempts go on so that no fencing token repeats.
-- keys: 3 2 1 0 loc dead u ctl wake t
-- ARGV: 1 id · 2 the place of its last attempt ('' = whichever), so that a repeated request replays once · 3 touch ('1' = always write)
-- returns: replayed · unknown · other (it has died again since) · unique (its unique key is held) · foreign (no readable envelope) · its state
-- include: base carry place
local id = ARGV[1]
if ARGV[3] == '1' then call('HINCRBY', K.ctl, 'touch', 1) end
local text = call('GET', K.t .. id)
if not text then return call('HEXISTS', K.loc, id) == 1 and 'pending' or 'unknown' end
local state, envelope, n = cut(text)
if state ~= 'failed' then return state or 'foreign' end
local last = match(n, '.*\n{"p":"([^"]*)"') or ''
if ARGV[2] ~= '' and ARGV[2] ~= last then return 'other' end
local priority, own = head(envelope)
if own ~= id then return 'foreign' end
local key = unique_of(envelope)
if key and call('HEXISTS', K.u, key) == 1 then return 'unique' end

local a, _, _, i = counters(n)
local lines = find(n, '\n', 1, true)
n = concat({a, 0, 0, i}, ',') .. (lines and sub(n, lines) or '')
call('ZREM', K.dead, id)
call('DEL', K.t .. id)
if key then call('HSET', K.u, key, id) end
call('HSET', K.loc, id, add(priority, envelope, n))
push_marker()
return 'replayed'
