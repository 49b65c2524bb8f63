-- depth: waiting entries of a stream = XLEN - pending. Never `lag`: it is nil after deletions.
local function group(stream)
  for _, row in ipairs(call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #row, 2 do info[row[i]] = row[i + 1] end
    if info.name == GROUP then return info end
  end
  return nil
end

local function left(digit)
  local length = call('XLEN', K[digit])
  if length == 0 then return false end
  local info = group(K[digit])
  return info == nil or length > info.pending
end
