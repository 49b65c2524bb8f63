-- carry: the three texts that make up a task, and how they are cut and joined.
-- envelope: immutable JSON; its head `{"v":1,"p":2,"i":"<id>"[,"u":"<unique>"][,"t":"<type>"]` has a fixed form and is read without a JSON parser.
-- N: `attempts,failures,crashes,interruptions`, then one line of JSON a past attempt; '' before the first one ends.
-- record: `<state> <envelope length>\n<envelope><N>`, the value of t:<id> and of body[id].
local KEPT_ATTEMPTS = 8

local function head(envelope)
  local priority, id = match(envelope, '^{"v":%d+,"p":([0-3]),"i":"([%w%.%-]+)"')
  return priority, id
end

local function unique_of(envelope)
  return match(envelope, '^{"v":%d+,"p":[0-3],"i":"[%w%.%-]+","u":"([^"]+)"')
end

local function type_of(envelope)
  local start = match(envelope, '^{"v":%d+,"p":[0-3],"i":"[%w%.%-]+"()')
  start = start and (match(envelope, '^,"u":"[^"]+"()', start) or start)
  return start and match(envelope, '^,"t":"([%w_.:-]+)"', start) or ''
end

local function record(state, envelope, n) return state .. ' ' .. #envelope .. '\n' .. envelope .. n end

-- nil when the text is no record (something foreign wrote it).
local function cut(text)
  local state, length, start = match(text, '^(%l+) (%d+)\n()')
  if not state then return nil end
  local stop = start + tonumber(length)
  return state, sub(text, start, stop - 1), sub(text, stop)
end

-- attempts, failures, crashes, interruptions
local function counters(n)
  local a, f, c, i = match(n, '^(%d+),(%d+),(%d+),(%d+)')
  return tonumber(a or 0), tonumber(f or 0), tonumber(c or 0), tonumber(i or 0)
end

-- N after one more attempt: new counters, the line at the end, the oldest lines cut.
local function extend(n, counts, line)
  local lines = {}
  for past in string.gmatch(n, '\n([^\n]+)') do lines[#lines + 1] = past end
  lines[#lines + 1] = line
  local first = math.max(1, #lines - KEPT_ATTEMPTS + 1)
  return concat(counts, ',') .. '\n' .. concat(lines, '\n', first)
end

-- Was the attempt at this place reported with this outcome? Only N is searched: the payload belongs to clients.
local function reported(n, place, outcome)
  return find(n, '\n{"p":"' .. place .. '","o":"' .. outcome .. '"', 1, true) ~= nil
end

-- The two fields of a stream entry; a foreign entry may hold anything.
local function fields(entry)
  if entry[1] == 'd' and (entry[3] == nil or entry[3] == 'n') then return entry[2], entry[4] or '' end
  return '', ''
end
