-- base: times and places.
-- include: names
local STREAMS = {'r', 's', '3', '2', '1', '0'}

-- Time in ms: the one given, else the server's.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Lua prints large numbers in scientific notation; times must stay digits.
local function digits(number) return string.format('%.0f', number) end

-- A place is the stream's digit followed by the entry id.
local function split(place) return sub(place, 1, 1), sub(place, 2) end

-- The entry at a place; nil if there is none, or if the place is none (something foreign wrote it).
local function entry_at(digit, entry)
  local rows = redis.pcall('XRANGE', K[digit], entry, entry)
  return not rows.err and rows[1] or nil
end

-- Who runs the entry at a place, and for how many ms; nil if nobody does.
local function owner_of(digit, entry)
  local rows = redis.pcall('XPENDING', K[digit], GROUP, entry, entry, 1)
  local row = not rows.err and rows[1]
  if row then return row[2], row[3] end
end
