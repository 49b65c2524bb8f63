#!lua flags=allow-oom
-- bulk_save: the owner of a job keeps how far it is and which tasks it acts on next, and learns whether to go on.
-- keys: bulk
-- ARGV: 1 now in ms ('' = server's) · 2 id · 3 owner · 4 lease in ms (0 = let go) · 5 progress, JSON ('' = as it was) · 6 next tasks, JSON ('' = none) · 7 '1' = that was all · 8 kept for s
-- returns: running · done · aborted (the next tasks are not kept; if it had ended so already, nothing was changed) · lost (another owns it, or it is gone: nothing was changed)
-- include: base
local now = clock(ARGV[1])
local key = K.bulk .. ':' .. ARGV[2]
local seen = call('HMGET', key, 'owner', 'state', 'abort')
if seen[1] ~= ARGV[3] then return 'lost' end
if seen[2] then return seen[2] end
call('HSET', key, 'until', digits(now + ARGV[4]))
if ARGV[5] == '' then return 'running' end
call('HSET', key, 'progress', ARGV[5])
call('EXPIRE', key, ARGV[8])
call('EXPIRE', K.bulk, ARGV[8])
local state = ARGV[7] == '1' and 'done' or seen[3] and 'aborted' or 'running'
if state == 'running' then
  call('HSET', key, 'next', ARGV[6])
else
  call('HDEL', key, 'next')
  call('HSET', key, 'state', state, 'ended', digits(now))
end
return state
