#!lua flags=allow-oom
-- pause: claims stop (submissions, promotions and reports go on); resume wakes one waiting process.
-- keys: ctl wake
-- ARGV: 1 '1' = pause, '0' = resume
-- returns: 1 if that changed anything
-- include: base place
if ARGV[1] == '1' then return call('HSET', K.ctl, 'paused', '1') end
local changed = call('HDEL', K.ctl, 'paused')
push_marker()
return changed
