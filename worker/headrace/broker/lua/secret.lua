#!lua flags=allow-oom
-- secret: what makes ids of idempotency keys in a namespace; made once, by whoever asks first.
-- keys: secret
-- ARGV: 1 a secret, if there is none yet · 2 touch: '1' = write even if there is one, so that WAIT confirms something
-- returns: the secret
local made = redis.call('SET', K.secret, ARGV[1], 'NX')
local secret = redis.call('GET', K.secret)
if ARGV[2] == '1' and not made then redis.call('SET', K.secret, secret) end
return secret
