"""`pytest --acl`: what our code opens logs in as the user of its role, on every server of the tests, from this process
and from those that it starts by `url_of`.

The tests' own clients stay `default`, who may do anything: they empty Redis and look at its raw keys. After each test
Redis must have refused nothing to one of our users, however the code took it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final
from unittest import mock
from weakref import WeakSet

from headrace.broker.acl import ROLES, lines
from headrace.connections import Connections
from headrace.redis_settings import RedisSettings
from headrace.runtime.worker import Worker
from headrace_api.services import Services
from headrace_cli.session import Session
from headrace_operator.looker import Looker
from headrace_operator.wake import Waker
from redis_server import RedisServer, SentinelServer

PASSWORDS: Final = {name: f"secret-of-{name}-0123" for name in ROLES}
_OPTIONAL: Final = ("client|setinfo", "client|maint_notifications")
"""redis-py tells its name and version in a way that is optional, and older servers lack."""
MANAGERS: Final = {"test_managing"}
"""Modules whose application manages queues and bulk jobs, for which it needs the rights of the API."""
OWN_USERS: Final = {
    "test_journal_that_may_not_be_read_is_said": "makes a user of its own",
    "test_redis_that_was_never_there_is_said_at_once": "expects an address without a login",
    "test_a_look_at_many_sees_what_a_look_at_each_sees": "claims and reports by the application's own connection",
    "test_what_the_journal_holds_no_more_is_a_gap": "trims the journal by the application's own connection",
    "test_a_connection_that_is_lost_loses_no_task": "lists clients by the application's own connection",
    "test_ten_minutes_of_trouble_scale_nothing": "takes the rights of the user without a login",
    "test_without_redis_nothing_is_scaled": "takes the password of the user without a login",
    "test_a_pool_at_rest_tells_that_redis_is_away": "takes the password of the user without a login",
    "test_a_replica_costs_no_connections": "a replica of these tests knows no users of roles",
    "test_a_server_that_cannot_keep_the_promise_is_said_to_be_misconfigured": "no role may read Redis' settings",
    "test_fsync_without_an_aof_claims_nothing_and_says_what_to_set": "no role may read Redis' settings",
    "test_a_synchronous_client_does_not_take_fsync_on_trust": "no role may read Redis' settings",
}
"""Tests that are not run under the users of the roles, and why."""
_servers: WeakSet[RedisServer] = WeakSet()
_application = "client"
_least_rights = False
"""Whether this run is one with --acl."""


def serve_as(module: str) -> None:
    """Which role the applications of this test module have."""
    global _application  # noqa: PLW0603 - as the servers above, of the whole process
    _application = "api" if module.rpartition(".")[2] in MANAGERS else "client"


def as_role(settings: RedisSettings, role: str) -> RedisSettings:
    """With the login of the role, unless the settings have one."""
    if settings.password:
        return settings
    return replace(settings, username=f"headrace-{role}", password=PASSWORDS[role])


def url_of(role: str, url: str) -> str:
    """The address for a process of this role: with its login under --acl, unless the address has one."""
    scheme, _, rest = url.partition("://")
    if not _least_rights or "@" in rest:
        return url
    return f"{scheme}://headrace-{role}:{PASSWORDS[role]}@{rest}"


def refused() -> list[str]:
    """What a running server refused to our users since `forgive`."""
    entries: list[dict[str, Any]] = [each for server in _running() for each in server.redis.acl_log()]
    ours = [f"{each['username']}: {each['reason']} {each['object']}" for each in entries if _is_ours(each)]
    return [each for each in ours if not each.endswith(_OPTIONAL)]


def forgive() -> None:
    """Begin anew."""
    for server in _running():
        server.redis.acl_log_reset()


def _is_ours(entry: dict[str, Any]) -> bool:
    return str(entry["username"]).startswith("headrace-")


def _running() -> list[RedisServer]:
    return [server for server in _servers if server.answers]


@contextmanager
def logged_in() -> Iterator[None]:
    """While it lasts each part of our code is the user of its role, and each new server knows these users."""
    global _least_rights  # noqa: PLW0603 - as the application's role, of the whole process
    with ExitStack() as stack:
        _least_rights = True
        stack.enter_context(mock.patch.object(RedisServer, "__init__", _with_users(RedisServer.__init__)))
        for entry, role, at in (
            (Worker, "worker", 2),
            (Services, "api", 1),
            (Session, "api", 1),
            (Waker, "operator", 1),
        ):
            stack.enter_context(mock.patch.object(entry, "__init__", _as(role, at, entry.__init__)))
        stack.enter_context(mock.patch.object(Looker, "__init__", _as_operator(Looker.__init__)))
        stack.enter_context(mock.patch.object(Connections, "_prepare", _as_client(Connections._prepare)))
        yield


def _with_users(init: Callable[..., None]) -> Callable[..., None]:
    def made(self: RedisServer, binary: Any, **options: Any) -> None:
        init(self, binary, **options)
        if not {"acl", "password", "replica_of"} & options.keys() and not isinstance(self, SentinelServer):
            users = lines((f">{PASSWORDS[name]}" for name in ROLES), redis=self.version[:2])
            self.options["acl"] = ["user default on nopass ~* &* +@all", *users]
            _servers.add(self)

    return made


def _as(role: str, at: int, init: Callable[..., None]) -> Callable[..., None]:
    """The `at`-th argument is the settings of Redis."""

    def made(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args[:at], as_role(args[at], role), *args[at + 1 :], **named)

    return made


def _as_operator(init: Callable[..., None]) -> Callable[..., None]:
    def made(self: Any, connections: dict[str, RedisSettings], **named: Any) -> None:
        init(self, {name: as_role(each, "operator") for name, each in connections.items()}, **named)

    return made


def _as_client(prepare: Callable[..., Any]) -> Callable[..., Any]:
    def prepared(self: Connections) -> Any:
        client, settings = prepare(self)
        # The library's stand-in for tests is no Redis, and knows no users.
        return client, as_role(settings, _application) if type(self) is Connections else settings

    return prepared
