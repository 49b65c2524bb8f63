#!lua flags=allow-oom
-- pause: claims stop (submissions, promotions and reports go on); resume wakes one waiting process.
-- keys: ctl wake
-- ARGV: 1 '1' = pause, '0' = resume · 2 now in ms ('' = server's): since when it is paused, kept by a second pause
-- returns: 1 if that changed anything
-- include: base place
if ARGV[1] == '1' then return call('HSETNX', K.ctl, 'paused', digits(clock(ARGV[2]))) end
local changed = call('HDEL', K.ctl, 'paused')
push_marker()
return changed
