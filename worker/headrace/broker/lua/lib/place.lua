-- place: putting a task into a stream, and the marker that wakes one waiting process.
local function add(digit, envelope, n)
  if n == '' then return digit .. call('XADD', K[digit], '*', 'd', envelope) end
  return digit .. call('XADD', K[digit], '*', 'd', envelope, 'n', n)
end

-- Idle is "no marker", not "no depth": after a lost marker a test of depth would silence every later submission.
local function push_marker()
  if call('LLEN', K.wake) == 0 and not call('HGET', K.ctl, 'paused') then call('LPUSH', K.wake, '1') end
end
