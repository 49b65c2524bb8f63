#!lua flags=allow-oom
-- publish: what a worker knows of its types. Field <type> of `types` is the version that was published newest, and beside
-- it lies <type>#<version> for every other one that a worker has renewed within its life: a rollout has two of them.
-- keys: types versions
-- ARGV: 1 now ms ('' = the server's) · 2 life of a version that is not renewed, ms · 3… type, version, description as JSON
--       ('' = it was published before, and is renewed)
-- returns: how many of those that should be renewed are not known (publish them)
-- include: base
local now, life = clock(ARGV[1]), tonumber(ARGV[2])

local function lives(member)
  local seen = call('ZSCORE', K.versions, member)
  return seen and tonumber(seen) > now - life
end

-- False if it is not known and there is nothing to know it by.
local function take(name, version, described)
  local newest = call('HGET', K.types, name)
  local of_newest = newest and name .. '#' .. sub(redis.sha1hex(newest), 1, 16)
  local field = name .. '#' .. version
  if field ~= of_newest then
    local beside = call('HGET', K.types, field)
    if not beside and described == '' then return false end
    local stands = newest and lives(of_newest)
    if not beside or not stands then
      if stands then call('HSET', K.types, of_newest, newest) end
      call('HSET', K.types, name, beside or described)
      call('HDEL', K.types, field)
    end
  end
  call('ZADD', K.versions, now, field)
  return true
end

local unknown = 0
for a = 3, #ARGV, 3 do
  if not take(ARGV[a], ARGV[a + 1], ARGV[a + 2]) then unknown = unknown + 1 end
end

local gone = call('ZRANGEBYSCORE', K.versions, '-inf', '(' .. digits(now - life), 'LIMIT', 0, 100)
for _, field in ipairs(gone) do
  call('HDEL', K.types, field)
  call('ZREM', K.versions, field)
end
return unknown
