"""`make hostile` in small, as CI runs it: an API process of its own under clients that drip and senseless requests."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import pytest

from bench.drip import TOKEN as DRIP_TOKEN
from bench.hostile import MAX_GROWTH_MB, Attacked, attack, dripping, good_client
from bench.rows_http import TOKEN, HttpServer, api_server
from bench.server import Server
from headrace.broker.broker import Queue, TaskView
from headrace.broker.sync_client import SyncClient
from headrace.client import Run
from headrace.listing import Ask, look_through
from headrace.task import LABEL, TYPE_NAME
from headrace_api import strict_json
from headrace_cli.redis_binary import RedisBinary

DRIPPING = 200
REQUESTS, WARM, SEED = 2_500, 500, 20


@pytest.fixture
def server(redis_binary: RedisBinary) -> Iterator[Server]:
    with Server(redis_binary) as server:
        server.fresh()
        yield server


@pytest.mark.slow
def test_two_hundred_drippers_hold_up_nobody(server: Server) -> None:
    """All of them stay connected, each from an address of its own, and every request of a good client is answered."""
    tokens = {"HEADRACE_TOKENS": f"bench:{TOKEN},drip:{DRIP_TOKEN}"}
    with api_server(server, HEADRACE_MAX_CONNECTIONS_PER_ADDRESS="2", **tokens) as api, dripping(api.port, DRIPPING):
        times = good_client(api.port, 2.0)  # raises if one is refused
        connected = gauge(api, "headrace_http_connections")
    assert len(times) >= 20
    assert connected >= DRIPPING


@pytest.mark.slow
def test_thousands_of_senseless_requests_leave_nothing_behind(server: Server) -> None:
    """No 5xx; what is stored was accepted and is in order; the API's memory stays."""
    with api_server(server, HEADRACE_TOKENS="") as api:
        done = attack(api, REQUESTS, SEED, WARM)
        stored = [task for name in queues(server) for task in all_of(server, name)]
    assert done.tally.failures == []
    assert done.tally.total == REQUESTS
    assert done.growth_mb < MAX_GROWTH_MB
    assert stored
    unseen = {task.id for task in stored} - done.tally.accepted
    assert len(unseen) <= unanswered(done), "each was accepted, or belongs to a damaged request that got no answer"
    assert [task for task in stored if not is_in_order(task)] == []
    assert {key for key in keys(server) if not is_ours(key)} == set()


def unanswered(done: Attacked) -> int:
    """Tasks that damaged requests without an answer may have stored: a batch has three."""
    return 3 * done.tally.statuses[0]


def gauge(api: HttpServer, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{api.port}/metrics") as reply:
        found = re.search(rf"^{name} (\S+)$", reply.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def keys(server: Server) -> list[str]:
    return [key.decode() for key in server.redis.keys("*")]


def is_ours(key: str) -> bool:
    """A key of the default namespace, or of a queue in it whose name can be one."""
    return re.fullmatch(rf"hr:\{{default(/{LABEL})?\}}:.+", key) is not None


def queues(server: Server) -> list[str]:
    return [name.decode() for name in server.redis.smembers("hr:{default}:queues")]


def all_of(server: Server, queue: str) -> Iterator[TaskView]:
    """Every task of a queue, with its payload."""
    client, ask = SyncClient(server.settings), Ask(limit=1_000, budget=1_000_000, payloads=True)
    steps = look_through([Queue(queue)], ask)
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Run)
            step = steps.send(client.call(step.call))
    except StopIteration as over:
        assert over.value.next is None
        yield from over.value.items
    finally:
        client.close()


def is_in_order(task: TaskView) -> bool:
    """A task as the API may store one: the door's own checks do not refuse it."""
    envelope = task.envelope
    if envelope is None or not re.fullmatch(TYPE_NAME, envelope.type) or not re.fullmatch(LABEL, task.queue):
        return False
    return type(strict_json.load(envelope.payload)) is dict and len(bytes(envelope.payload)) <= 64 * 1024
