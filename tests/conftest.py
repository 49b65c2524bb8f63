"""Fixtures that all tests share: real Redis servers."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, Unpack

import pytest
from hypothesis import settings

import cluster_kit
import roles
from app_kit import make_app
from cluster import choice
from cluster.choice import Cluster
from cluster_kit import World
from command_desk import PUBLISHED, Headrace, in_place
from control_plane import ControlPlane, running
from headrace import App
from headrace.broker.sync_client import SyncClient
from headrace.redis_settings import RedisSettings
from headrace_cli.redis_binary import RedisBinary, find
from operator_kit import Opener, Scene
from operator_yard import Yard, yard
from redis_server import Missing, Options, RedisServer, real_servers, supports_tls
from worker_harness import Desk

# A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SERVERS = real_servers()

# On a shared machine an example's duration says little, so no deadline. `make model` picks the long profile.
settings.register_profile("quick", deadline=None, print_blob=True)
settings.register_profile("long", parent=settings.get_profile("quick"), max_examples=20_000, stateful_step_count=200)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--acl", action="store_true", help="our code logs in as the users of docs/how-to/redis.md")


@pytest.fixture(scope="session", autouse=True)
def _with_least_rights(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --acl every part of our code is the user of its role; before any server is started."""
    if not request.config.getoption("--acl"):
        yield
        return
    with roles.logged_in():
        yield


@pytest.fixture(autouse=True)
def _nothing_is_refused(request: pytest.FixtureRequest, _with_least_rights: None) -> Iterator[None]:
    if not request.config.getoption("--acl"):
        yield
        return
    name = getattr(request.node, "originalname", "")
    if name in roles.OWN_USERS:
        pytest.skip(f"not under --acl: {roles.OWN_USERS[name]}")
    roles.serve_as(request.module.__name__)
    roles.forgive()
    yield
    assert roles.refused() == [], "a role lacks a right (headrace.broker.acl)"


@pytest.fixture(autouse=True)
def _log_levels_as_before() -> Iterator[None]:
    """Commands that a test runs in this process set levels for good; the next test must not feel that."""
    names = (None, "headrace", "headrace_api", "headrace.worker", "headrace.attempt", "headrace.operator")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    yield
    for logger, level in before:
        logger.setLevel(level)


class StartRedis(Protocol):
    """Starts a server of a test's own, with the options of :class:`redis_server.Options`."""

    def __call__(self, **options: Unpack[Options]) -> RedisServer: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may be no text that can be sent: xdist would end with the first lone surrogate."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped and why, one line a reason; pytest's own list has one a test."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session", params=list(SERVERS))
def redis_binary(request: pytest.FixtureRequest) -> RedisBinary:
    """Each real Redis server of this machine in turn. A missing one is a skip, in CI a failure."""
    binary = SERVERS[request.param]
    if isinstance(binary, Missing):
        if os.environ.get("CI") == "true":
            pytest.fail(f"{binary.reason}; CI tests on every wanted series", pytrace=False)
        pytest.skip(binary.reason)
    return binary


@pytest.fixture(scope="session")
def redis_server(redis_binary: RedisBinary) -> Iterator[RedisServer]:
    """One server for all tests that leave it as they found it; ``redis_url`` empties it."""
    with RedisServer(redis_binary) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of the shared server, which runs and is empty."""
    redis_server.ensure()
    redis_server.redis.flushall()
    return redis_server.url


@pytest.fixture
def broker(redis_url: str) -> Iterator[SyncClient]:
    """Carries out transitions on the shared server."""
    client = SyncClient(RedisSettings.parse(redis_url, "test"))
    yield client
    client.close()


@pytest.fixture
def app(redis_url: str) -> Iterator[App[None]]:
    """An App without tasks that submits to the shared server."""
    app = make_app(redis_url)
    yield app
    app.close()


@pytest.fixture
def typed(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Headrace:
    """Runs commands in this process, in an empty folder, on the shared server."""
    monkeypatch.chdir(tmp_path)
    return in_place(redis_url, monkeypatch, capfd)


@pytest.fixture
def published(redis_server: RedisServer, redis_url: str) -> None:
    """A worker knew the type `greet`."""
    redis_server.redis.hset("hr:{default}:types", "greet", PUBLISHED)


@pytest.fixture
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    """Submits tasks to the shared server and looks at them."""
    async with Desk(redis_url) as desk:
        yield desk


@pytest.fixture
def start_redis(redis_binary: RedisBinary) -> Iterator[StartRedis]:
    """Starts servers for this test alone: ``start_redis(appendfsync="always", password="x")``."""
    servers: list[RedisServer] = []

    def start(**options: Unpack[Options]) -> RedisServer:
        if "tls" in options and not supports_tls(redis_binary):
            pytest.skip(f"{redis_binary} was built without TLS")
        servers.append(RedisServer(redis_binary, **options))
        return servers[-1].start()

    yield start
    for server in reversed(servers):
        server.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Kubernetes with our CRDs: the given one, else one of our own, which CI stops at the end."""
    if named := choice.given(os.environ):
        cluster_kit.install(named)
        yield named
        return
    way = choice.choose()
    if isinstance(way, str):
        pytest.skip(way)
    with choice.alone(wait=True):
        made = choice.running(way)
        cluster_kit.install(made)
        yield made
        if os.environ.get("CI") == "true":
            way.down()


@pytest.fixture
async def world(cluster: Cluster) -> AsyncIterator[World]:
    """A fresh namespace of the cluster, with a Redis and an API."""
    async with cluster_kit.world(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without nodes, for one module of tests."""
    with running(tmp_path_factory.mktemp("plane")) as made:
        yield made


@pytest.fixture(scope="module")
def plane_redis() -> Iterator[str]:
    """The Redis beside it. One does: what is asked of Kubernetes is the same with every Redis."""
    with RedisServer(next(each for each in find() if isinstance(each, RedisBinary))) as server:
        yield server.url


@pytest.fixture
async def at(plane: ControlPlane, plane_redis: str) -> AsyncIterator[Yard]:
    """A namespace of the control plane, and its queues."""
    async with yard(plane, plane_redis) as made:
        yield made


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Opener]:
    """Pools on a cluster in memory, each closed at the end."""
    async with AsyncExitStack() as stack:

        def open_scene(**spec: Any) -> Scene:
            made = Scene(redis_url, **spec)
            stack.push_async_callback(made.aclose)
            return made

        yield open_scene
