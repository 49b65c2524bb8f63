"""An API server that hangs, dies or comes back without history, and the operator as a process of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from control_plane import ControlPlane, why_not
from headrace_cli.redis_binary import RedisBinary, find
from operator_process import Shop, operator_process
from redis_server import RedisServer

pytestmark = pytest.mark.slow
AWAY_S = 12.0
"""Longer than a request waits for its answer."""
CONVERGED_S = 15.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if reason := why_not():
        pytest.skip(reason)
    made = ControlPlane(tmp_path_factory.mktemp("plane")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with RedisServer(next(each for each in find() if isinstance(each, RedisBinary))) as server:
        yield server.url


@pytest.fixture
async def shop(plane: ControlPlane, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """A pool that runs one replica, with an operator that must outlive whatever comes."""
    made = Shop(plane, redis_url, f"shop-{uuid.uuid4().hex[:8]}")
    plane.kubectl("create", "namespace", made.namespace)
    with operator_process(plane.kubeconfig(), redis_url, tmp_path / "log"):
        made.apply()
        await made.submit(40)
        await made.until(lambda: made.asked_for() == 1 and len(made.pods) == 1, 60)
        yield made
    made.kubectl("delete", "workerpool", "--all")
    await made.client.command("FLUSHALL")
    await made.client.aclose()


async def test_one_that_hangs(shop: Shop) -> None:
    """What waits changes twice meanwhile; it is the last that counts when it is back."""
    with shop.plane.frozen():
        await shop.empty(await shop.submit(400))
        await shop.submit(110)
        await asyncio.sleep(AWAY_S)
    began = time.monotonic()
    await shop.until(lambda: shop.asked_for() == 3)
    assert time.monotonic() - began < CONVERGED_S


async def test_one_that_dies_and_comes_back(shop: Shop) -> None:
    """While it is away 400 tasks want five replicas, which is never written; when it is back 150 want three."""
    shop.plane.kill("kube-apiserver")
    ids = await shop.submit(400)
    await asyncio.sleep(3)
    await shop.empty(ids)
    await shop.submit(110)
    await asyncio.sleep(AWAY_S)
    shop.plane.start_api()
    began, seen = time.monotonic(), set[int]()

    def settled() -> bool:
        seen.add(shop.asked_for())
        return 3 in seen

    await shop.until(settled)
    assert time.monotonic() - began < CONVERGED_S
    assert seen <= {1, 3}


async def test_a_pool_that_was_changed_while_the_watches_were_cut(shop: Shop) -> None:
    """The history of watches is gone too: etcd has forgotten what was before (410, and a new list)."""
    shop.plane.kill("kube-apiserver")
    shop.plane.start_api()
    shop.apply(minReplicas=4)
    shop.plane.compact()
    began = time.monotonic()
    await shop.until(lambda: shop.asked_for() == 4)
    assert time.monotonic() - began < CONVERGED_S


async def test_a_pool_that_was_deleted_while_the_watches_were_cut(shop: Shop) -> None:
    """No Deployment comes back, and none is asked for."""
    shop.plane.kill("kube-apiserver")
    shop.plane.start_api()
    shop.kubectl("delete", "workerpool", "emails")
    shop.plane.compact()
    await shop.until(lambda: shop.asked_for() == -1)
    await asyncio.sleep(10)
    assert shop.asked_for() == -1
