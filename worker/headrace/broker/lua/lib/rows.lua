-- rows: every stream's digit, length, pending ('' = its group is missing) and the id of its oldest waiting entry ('' = nothing waits).
local function stream_rows()
  local rows = {}
  for _, digit in ipairs(STREAMS) do
    local length = call('XLEN', K[digit])
    local info = call('EXISTS', K[digit]) == 1 and group(K[digit])
    local entry = info and length > info.pending and call('XRANGE', K[digit], '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
    for _, value in ipairs({digit, length, info and info.pending or '', entry and entry[1] or ''}) do rows[#rows + 1] = value end
  end
  return rows
end
