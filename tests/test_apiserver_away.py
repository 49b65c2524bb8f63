"""An API server that hangs, dies or comes back without history, and the operator as a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chaos.proxy import FaultProxy
from control_plane import ControlPlane
from headrace_cli.ports import free_port
from operator_process import Shop, operator_process
from worker_harness import eventually

pytestmark = pytest.mark.slow
AWAY_S = 12.0
"""Longer than a request waits for its answer."""
CONVERGED_S = 15.0
OUT_S = 60.0
"""Patience: a Lease is over after 15 s, and a busy machine is slow to say so."""


@pytest.fixture
async def shop(plane: ControlPlane, plane_redis: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """A pool that runs one replica, with an operator that must outlive whatever comes."""
    async with shop_of(plane, plane_redis) as made:
        with operator_process(plane.kubeconfig(), plane_redis, tmp_path / "log"):
            await begins(made)
            yield made


@asynccontextmanager
async def shop_of(plane: ControlPlane, plane_redis: str) -> AsyncIterator[Shop]:
    made = Shop(plane, plane_redis, f"shop-{uuid.uuid4().hex[:8]}")
    plane.kubectl("create", "namespace", made.namespace)
    try:
        yield made
    finally:
        made.kubectl("delete", "workerpool", "--all")
        await made.client.command("FLUSHALL")
        await made.client.aclose()


async def begins(shop: Shop) -> None:
    shop.apply()
    await shop.submit(40)
    await shop.until(lambda: shop.asked_for() == 1 and len(shop.pods) == 1, 60)


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


# with a Lease


class Probe:
    """What an operator says of itself on its port."""

    def __init__(self) -> None:
        self.port = free_port()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    async def until(self, *said: str) -> None:
        """`/readyz` says one of these."""

        async def look() -> bool:
            _, text = await asyncio.to_thread(self.get, "/readyz")
            return any(each in text for each in said)

        await eventually(look, OUT_S)

    def leading(self) -> bool:
        return "\nheadrace_operator_leading 1.0" in self.get("/metrics")[1]


async def test_a_holder_of_the_lease_stands_by_while_it_cannot_renew_it(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """It does not end, it says that it does not lead, and it goes on by itself when the server is back."""
    probe, lease = Probe(), {"lease": "true", "lease_namespace": "default"}
    async with shop_of(plane, plane_redis) as shop:
        with operator_process(plane.kubeconfig(), plane_redis, tmp_path / "log", probe.port, **lease):
            await begins(shop)
            assert probe.get("/readyz") == (200, '{"status": "ok"}') and probe.leading()
            with plane.frozen():
                await shop.submit(110)
                await probe.until("standing by")
                assert probe.get("/readyz")[0] == 503 and not probe.leading()
                assert probe.get("/livez")[0] == 200
                await asyncio.sleep(AWAY_S)
            began = time.monotonic()
            await shop.until(lambda: shop.asked_for() == 3)
            assert time.monotonic() - began < CONVERGED_S
            assert probe.get("/readyz")[0] == 200 and probe.leading()


async def test_one_that_is_cut_off_leaves_the_work_to_another_and_comes_back_as_its_spare(
    plane: ControlPlane, plane_redis: str, tmp_path: Path
) -> None:
    """Only the first one's line to the API server is dead: the second takes over, and both are never leading."""
    kubeconfig = json.loads(plane.kubeconfig().read_text())
    server = kubeconfig["clusters"][0]["cluster"]
    async with shop_of(plane, plane_redis) as shop, FaultProxy(urlsplit(server["server"]).port or 0) as line:
        server["server"] = f"https://127.0.0.1:{line.port}"
        path = tmp_path / "through-the-line.kubeconfig"
        path.write_text(json.dumps(kubeconfig))
        first, second, lease = Probe(), Probe(), {"lease": "true", "lease_namespace": shop.namespace}
        with operator_process(path, plane_redis, tmp_path / "1", first.port, identity="first", **lease):
            await first.until('"ok"')
            with operator_process(
                plane.kubeconfig(), plane_redis, tmp_path / "2", second.port, identity="second", **lease
            ):
                await second.until("first holds the Lease")
                assert second.get("/readyz")[0] == 200 and not second.leading()
                await begins(shop)
                line.blackhole()
                await shop.submit(110)
                await first.until("standing by")
                assert not second.leading(), "the first one stopped before the second may begin"
                await second.until('"ok"')
                await shop.until(lambda: shop.asked_for() == 3)
                line.heal()
                await first.until("second holds the Lease")
                assert first.get("/readyz")[0] == 200 and second.leading() and not first.leading()
