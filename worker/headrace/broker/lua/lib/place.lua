-- place: putting a task into a stream.
local function add(digit, envelope, n)
  if n == '' then return digit .. call('XADD', K[digit], '*', 'd', envelope) end
  return digit .. call('XADD', K[digit], '*', 'd', envelope, 'n', n)
end

-- include: marker
