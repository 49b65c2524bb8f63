"""How redis-py is told what our settings say: TLS, and the way into the sentinels."""

from __future__ import annotations

from typing import Any

from headrace.redis_settings import RedisSettings


def tls_options(settings: RedisSettings) -> dict[str, Any]:
    """Keyword arguments of redis-py's clients, synchronous or not; none for plain text."""
    if settings.tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": settings.tls.ca or None,
        "ssl_certfile": settings.tls.cert or None,
        "ssl_keyfile": settings.tls.key or None,
        "ssl_check_hostname": settings.tls.check_hostname,
    }


def sentinel_options(settings: RedisSettings) -> dict[str, Any]:
    """For the sentinels: who is reached over TLS has sentinels that are, and they ask for the same certificate."""
    return {"password": settings.sentinel_password or None, **tls_options(settings)}
