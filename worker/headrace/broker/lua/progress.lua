#!lua
-- progress: what a worker's handlers say of their progress, of all at once. No allow-oom: it is worth less than any task.
-- keys: progress
-- ARGV: 1 worker · 2 time to live in s · then per task: id · JSON, or '' when its attempt has ended
-- returns: 1
local key = K.progress .. ARGV[1]
for at = 3, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', key, ARGV[at])
  else
    redis.call('HSET', key, ARGV[at], ARGV[at + 1])
  end
end
redis.call('EXPIRE', key, ARGV[2])
return 1
