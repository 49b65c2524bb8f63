#!lua flags=allow-oom
-- secret: what makes ids of idempotency keys in a namespace; made once, by whoever asks first.
-- keys: secret
-- ARGV: 1 a secret, if there is none yet
-- returns: the secret
redis.call('SET', K.secret, ARGV[1], 'NX')
return redis.call('GET', K.secret)
