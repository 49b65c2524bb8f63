-- marker: it wakes one waiting process.
-- Idle is "no marker", not "no depth": after a lost marker a test of depth would silence every later submission.
local function push_marker()
  if call('LLEN', K.wake) == 0 and not call('HGET', K.ctl, 'paused') then call('LPUSH', K.wake, '1') end
end
