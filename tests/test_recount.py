"""What is gone while no watch told it: found by a full list, which forgets nothing that came meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from headrace_operator.cluster import ClusterError
from headrace_operator.fleet import Key
from headrace_operator.kube import Watched
from headrace_operator.recount import Recount
from operator_kit import KEY, Scene, resource

Json = dict[str, Any]


def thing(name: str, pool: str = "emails", **more: Any) -> Json:
    labels = {"headrace.dev/pool": pool}
    return {"metadata": {"name": name, "namespace": "shop", "labels": labels, "resourceVersion": "7"}, **more}


def deployment(name: str) -> Json:
    return thing(name, name, spec={"replicas": 2})


class Lists:
    """An API server that only lists, two objects a page."""

    def __init__(self) -> None:
        self.held: dict[str, list[Json]] = {"workerpools": [], "deployments": [], "pods": []}
        self.asked: list[str] = []
        self.meanwhile: Any = None
        self.broken = False

    async def send(self, method: str, path: str, accept: str) -> Json:
        assert (method, "PartialObjectMetadataList" in accept) == ("GET", True)
        if self.broken:
            raise ClusterError("the API server answers 410: the continue token has expired")
        self.asked.append(path)
        items = self.held[path.partition("?")[0].rpartition("/")[2]]
        start = int(path.partition("&continue=")[2] or 0)
        if self.meanwhile is not None:
            self.meanwhile()
        more = {"continue": str(start + 2)} if start + 2 < len(items) else {}
        return {"items": items[start : start + 2] or None, "metadata": more}


class Counted:
    """A pool with a Deployment and five pods, all of which the watches showed."""

    def __init__(self, scene: Scene) -> None:
        self.loop, self.watched, self.lists = scene.loop, Watched(), Lists()
        self.gone: list[tuple[Key, str]] = []
        self.lists.held = {
            "workerpools": [thing("emails")],
            "deployments": [deployment("emails")],
            "pods": [thing(f"emails-{number}") for number in range(5)],
        }
        self.watched.saw_deployment(deployment("emails"), deleted=False)
        for pod in self.lists.held["pods"]:
            self.watched.saw_pod(pod, deleted=False)
        self.recount = Recount(
            cast(Any, self.lists), self.loop, self.watched, ["shop"], lambda key, name: self.gone.append((key, name))
        )

    @property
    def pods(self) -> set[str]:
        return {pod.name for pod in self.watched.fleet(KEY).pods}


@pytest.fixture
async def counted(redis_url: str) -> AsyncIterator[Counted]:
    scene = Scene(redis_url)
    yield Counted(scene)
    await scene.aclose()


async def test_what_is_there_stays(counted: Counted) -> None:
    await counted.recount.once()
    assert len(counted.pods) == 5, "also those on the later pages"
    assert counted.watched.fleet(KEY).exists
    assert KEY in counted.loop.pools
    assert counted.gone == []
    assert all(path.startswith(("/api/v1/namespaces/shop/", "/apis/")) for path in counted.lists.asked)


async def test_what_is_gone_is_forgotten(counted: Counted) -> None:
    counted.lists.held = {"workerpools": [], "deployments": [], "pods": counted.lists.held["pods"][:1]}
    await counted.recount.once()
    assert counted.pods == {"emails-0"}
    assert not counted.watched.fleet(KEY).exists
    assert counted.loop.pools == {}
    assert len(counted.gone) == 4


async def test_a_pool_that_nobody_could_read_is_forgotten_too(counted: Counted) -> None:
    counted.loop.saw_pool(resource() | {"metadata": resource()["metadata"] | {"name": "broken"}, "spec": {}})
    assert counted.loop.unreadable == 1
    await counted.recount.once()
    assert counted.loop.unreadable == 0
    assert KEY in counted.loop.pools


async def test_what_came_while_the_lists_were_made_stays(counted: Counted) -> None:
    """The watch shows a pod, and another one as it is now, after the list that does not hold them."""

    def watch() -> None:
        counted.watched.saw_pod(thing("emails-9"), deleted=False)
        counted.watched.saw_pod(thing("emails-4"), deleted=False)
        counted.watched.saw_deployment(deployment("mail"), deleted=False)

    counted.lists.held["pods"] = counted.lists.held["pods"][:4]
    counted.lists.meanwhile = watch
    await counted.recount.once()
    assert counted.pods == {f"emails-{number}" for number in (0, 1, 2, 3, 4, 9)}
    assert counted.watched.fleet(Key("shop", "mail")).exists


async def test_half_a_list_forgets_nothing(counted: Counted) -> None:
    counted.lists.held["pods"] = []
    counted.lists.broken = True
    with pytest.raises(ClusterError):
        await counted.recount.once()
    assert len(counted.pods) == 5
