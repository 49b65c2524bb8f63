-- names: what every script calls.
local call, sub, find, match, concat = redis.call, string.sub, string.find, string.match, table.concat
local GROUP = 'g'
