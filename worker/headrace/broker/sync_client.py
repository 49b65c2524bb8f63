"""Carrying out a `Call` from synchronous code, over redis-py. A module of its own, because importing that is slow."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from headrace.errors import DurabilityUnconfirmed, StoreFull, StoreTimeout, StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.settings import Durability, Fsync, Local

from . import durability as durable
from .broker import Call
from .client import LOCAL
from .connecting import parse_version
from .connection import RedisError, by_word
from .refusals import remedied

R = TypeVar("R")


class SyncClient:
    """For synchronous callers; safe to share between threads."""

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._redis: redis.Redis | None = None
        self._version = (0, 0, 0)
        self._checked: set[Durability] = set()

    def call(self, call: Call[R], durability: Durability = LOCAL, *, timeout_s: float = 1.0) -> R:
        """As AsyncClient.call; `timeout_s` is how long to wait for the confirmation."""
        client = self._client()
        with _explained(self.settings), client.client() as one:
            if call.writes_tasks and durability not in self._checked:
                self._check(one, durability)
            reply = _evaluate(one, call)
            if call.writes_tasks and not isinstance(durability, Local):
                self._confirm(one, durability, timeout_s)
        return call.parse(reply)

    def _check(self, one: redis.Redis, durability: Durability) -> None:
        if not isinstance(durability, Local):
            self._version = parse_version(str(one.info("server")["redis_version"]))
        if isinstance(durability, Fsync):
            with suppress(redis.exceptions.ResponseError):  # as in durability.check
                durable.judge({str(k): str(v) for k, v in one.config_get("append*").items()}, self._version)
        self._checked.add(durability)

    def _confirm(self, one: redis.Redis, durability: Durability, timeout_s: float) -> None:
        follow = durable.confirmation(durability, self._version, timeout_s)
        if follow is not None and not durable.is_confirmed(durability, one.execute_command(*follow)):
            raise DurabilityUnconfirmed((), str(durability))

    def _client(self) -> redis.Redis:
        with self._lock:
            if self._redis is None:
                self._redis = sync_redis(self.settings)
            return self._redis

    def close(self) -> None:
        """Close its connections; a later call opens others."""
        with self._lock:
            if self._redis is not None:
                self._redis.close()
                self._redis = None
                self._checked.clear()


def _evaluate(client: redis.Redis, call: Call[Any]) -> Any:
    try:
        return client.execute_command(*call.words)
    except redis.exceptions.NoScriptError:
        return client.execute_command(*call.words_with_source)


class _explained:  # noqa: N801 - read like a function: with _explained(settings)
    """redis-py's errors as headrace's."""

    def __init__(self, settings: RedisSettings) -> None:
        self.where = str(settings)

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        match error:
            case redis.exceptions.TimeoutError():
                raise StoreTimeout(self.where, str(error)) from None
            case redis.exceptions.OutOfMemoryError():
                raise StoreFull(self.where, str(error)) from None
            case redis.exceptions.AuthenticationError():
                raise RedisError(f"Redis at {self.where} refused the login: {remedied(str(error))}") from None
            case redis.exceptions.ConnectionError():
                raise StoreUnavailable(self.where, str(error)) from None
            case redis.exceptions.ReadOnlyError() | redis.exceptions.MasterDownError():
                raise StoreUnavailable(self.where, str(error), answered=True) from None  # its first word was cut off
            case redis.exceptions.ResponseError():
                raise by_word(str(error), self.where) from None


def sync_redis(settings: RedisSettings) -> redis.Redis:
    """redis-py's client for these settings, with its own retries off: they repeat what must not be repeated."""
    options: dict[str, Any] = {
        "db": settings.db,
        "username": settings.username or None,
        "password": settings.password or None,
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        **_tls_options(settings),
    }
    if settings.kind == "sentinel":
        finder = Sentinel(list(settings.sentinels), sentinel_kwargs=_sentinel_options(settings))
        client: redis.Redis = finder.master_for(settings.master, **options)
        return client
    if settings.kind == "unix":
        return redis.Redis(unix_socket_path=settings.path, **options)
    return redis.Redis(host=settings.host, port=settings.port, **options)


def _sentinel_options(settings: RedisSettings) -> dict[str, Any]:
    """Who is reached over TLS has sentinels that are. They are asked in turn, beginning with the one that answered
    last, so one that is silent must not hold up the others for long.
    """
    limit = settings.connect_timeout_s / 2
    return {
        "password": settings.sentinel_password or None,
        "socket_timeout": limit,
        "socket_connect_timeout": limit,
        "retry": Retry(NoBackoff(), 0),
        **_tls_options(settings),
    }


def _tls_options(settings: RedisSettings) -> dict[str, Any]:
    """None for plain text."""
    if settings.tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": settings.tls.ca or None,
        "ssl_certfile": settings.tls.cert or None,
        "ssl_keyfile": settings.tls.key or None,
        "ssl_check_hostname": settings.tls.check_hostname,
    }
