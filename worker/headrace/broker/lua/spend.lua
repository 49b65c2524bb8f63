#!lua flags=allow-oom
-- spend: permits are taken from a bucket that fills evenly (GCRA); one key a bucket, gone when it is full again.
-- keys: rate
-- ARGV: 1 now in ms ('' = server's) · 2 bucket · 3 permits it holds · 4 ms in which it fills · 5 permits needed · 6 permits wanted, for the next requests too
--       7 '1' = on credit, for what was let in already: never refused
-- returns: {taken, left, ms}: taken is what was wanted, what there was, or at least what was needed (a bucket with one permit can run into
--          debt, so that a large batch is not refused for ever); 0 if it is empty, ms = until it holds a permit again
-- include: base
local now = clock(ARGV[1])
local key = K.rate .. ':' .. ARGV[2]
local size, window = tonumber(ARGV[3]), tonumber(ARGV[4])
local needed, wanted = tonumber(ARGV[5]), tonumber(ARGV[6])
local interval = window / size
-- The time at which the bucket is full again.
local full_at = math.max(now, tonumber(call('GET', key) or '0') or 0)
local there = size - (full_at - now) / interval
-- Fractions of ms are lost in a number of so many: 10 µs are given, so that no whole permit is missed by a hair.
there = there + 0.01 / interval
if there < 1 and ARGV[7] ~= '1' then return {0, 0, math.ceil((1 - there) * interval)} end
local taken = math.max(needed, math.min(wanted, math.floor(there)))
full_at = full_at + taken * interval
call('SET', key, string.format('%.6f', full_at), 'PX', math.max(1, math.ceil(full_at - now)))
return {taken, math.max(0, math.floor(there - taken)), 0}
