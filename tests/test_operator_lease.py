"""The Lease: who leads stops by itself when it cannot renew, whatever the API server does, and campaigns again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from headrace_operator import lease as module
from headrace_operator.cluster import ClusterError, Conflict
from headrace_operator.lease import Lease
from headrace_operator.requests import NotLeading, NotThere, Requests
from headrace_operator.server import Health
from headrace_operator.slots import AT_ONCE


class LeaseServer:
    """An API server that knows one Lease; each candidate reaches it by a line of its own."""

    def __init__(self) -> None:
        self.version = 0
        self.spec: dict[str, Any] | None = None

    def do(self, method: str, body: Any) -> Any:
        if method == "GET":
            if self.spec is None:
                raise NotThere("no Lease")
        elif method == "POST" and self.spec is not None:
            raise Conflict("the object exists already")
        elif method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("the object has been modified")
        else:
            self.version, self.spec = self.version + 1, body["spec"]
        return {"metadata": {"resourceVersion": str(self.version)}, "spec": self.spec}


class Line:
    """Stands in for Requests: how long it takes there and back, and whether anything passes."""

    def __init__(self, server: LeaseServer) -> None:
        self._server = server
        self.there: Callable[[], float] = lambda: 0.0
        self.back: Callable[[], float] = lambda: 0.0
        self.cut = False

    async def send(self, method: str, path: str, body: Any = None) -> Any:
        if self.cut:
            await asyncio.sleep(3_600)
        await asyncio.sleep(self.there())
        answer = self._server.do(method, body)
        await asyncio.sleep(self.back())
        if self.cut:
            raise ClusterError("the connection was cut")
        return answer


@pytest.fixture(autouse=True)
def _fifty_times_as_fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("DURATION_S", "RENEW_S", "RETRY_S", "TRY_S"):
        monkeypatch.setattr(module, name, getattr(module, name) / 50)
    yield


def candidate(server: LeaseServer, name: str) -> tuple[Lease, Line]:
    line = Line(server)
    return Lease(cast(Any, line), "headrace", name), line


async def test_a_holder_that_hears_nothing_stops_before_anybody_else_may_begin() -> None:
    """The request hangs, which must not put off the end."""
    server = LeaseServer()
    first, line = candidate(server, "first")
    second, _ = candidate(server, "second")
    assert await first.acquire(asyncio.Event()) and first.leads()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire(asyncio.Event()))
    await asyncio.sleep(module.RETRY_S)
    line.cut = True
    await asyncio.wait_for(keeping, module.RENEW_S + module.RETRY_S)
    assert not first.leads() and not second.leads()
    assert await waiting and second.leads()
    assert first.trouble


async def test_who_creates_it_too_late_does_not_take_it() -> None:
    """Both saw that there is none; it is the other one's by the time at which the second creation arrives."""
    server = LeaseServer()
    first, line = candidate(server, "first")
    second, _ = candidate(server, "second")

    async def slow(method: str, path: str, body: Any = None) -> Any:
        if method == "POST":
            assert await second.acquire(asyncio.Event())
        return server.do(method, body)

    line.send = slow  # type: ignore[method-assign]
    assert not await first._try(module.TRY_S)
    assert not first.leads() and second.leads()


async def test_a_lease_runs_from_when_it_was_asked_for_and_not_from_the_answer() -> None:
    """The server wrote it at once; others count from then."""
    server = LeaseServer()
    first, line = candidate(server, "first")
    line.back = lambda: module.TRY_S / 3
    assert await first.acquire(asyncio.Event())
    left_s = first._left_s
    assert left_s <= module.RENEW_S - module.TRY_S / 3


async def test_who_was_cut_off_leads_again_when_the_server_is_back() -> None:
    server = LeaseServer()
    first, line = candidate(server, "first")
    assert await first.acquire(asyncio.Event())
    line.cut = True
    await first.keep()
    again = asyncio.create_task(first.acquire(asyncio.Event()))
    await asyncio.sleep(2 * module.DURATION_S)
    assert not again.done() and not first.leads()
    line.cut = False
    assert await asyncio.wait_for(again, 2 * (module.RETRY_S + module.TRY_S))
    assert first.leads() and first.trouble == ""


async def test_who_lost_it_to_another_one_stands_by() -> None:
    server = LeaseServer()
    first, line = candidate(server, "first")
    second, _ = candidate(server, "second")
    assert await first.acquire(asyncio.Event())
    line.cut = True
    await first.keep()
    assert await second.acquire(asyncio.Event())
    keeping = asyncio.create_task(second.keep())
    line.cut = False
    waiting = asyncio.create_task(first.acquire(asyncio.Event()))
    await asyncio.sleep(2 * module.DURATION_S)
    assert second.leads() and not first.leads() and first.holder == "second"
    await second.release()
    assert await asyncio.wait_for(waiting, 2 * (module.RETRY_S + module.TRY_S))
    assert first.leads()
    await keeping


@pytest.mark.parametrize("seed", range(4))
async def test_never_two_at_once(seed: int) -> None:
    """Three candidates, lines that are slow, lose answers and are cut off; looked at every millisecond.

    It takes as long as it takes until another one has taken over: on a busy machine all of them are late.
    """
    dice, server, led = random.Random(seed), LeaseServer(), set[str]()
    made = [candidate(server, name) for name in ("a", "b", "c")]

    async def campaign(lease: Lease) -> None:
        while await lease.acquire(asyncio.Event()):
            await lease.keep()

    for _, line in made:
        line.there = line.back = lambda: dice.choice((0.0, 0.0, 0.005, 0.03, 0.2))
    tasks = [asyncio.create_task(campaign(lease)) for lease, _ in made]
    for step in range(20_000):
        if step >= 2_000 and len(led) > 1:
            break
        if dice.random() < 0.01:
            line = dice.choice(made)[1]
            line.cut = not line.cut
        leading = [lease.identity for lease, _ in made if lease.leads()]
        assert len(leading) < 2
        led.update(leading)
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(led) > 1, "nobody ever took over, so nothing was seen"


async def test_a_write_that_waited_for_its_turn_is_not_sent_when_the_time_is_over() -> None:
    """A busy API server makes requests wait in this process; the fence is where they leave it."""
    sent: list[str] = []

    class Api:
        async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[str, str, dict[str, str]]:
            return method, path, {}

        async def call_api(self, method: str, *_: Any, **__: Any) -> Any:
            sent.append(method)
            raise TimeoutError

    leads = True
    requests = Requests(cast(Any, Api()))
    fenced = requests.fenced(lambda: leads)
    others = [requests._slots.one() for _ in range(AT_ONCE)]
    for each in others:
        await each.__aenter__()
    waiting = asyncio.create_task(fenced.send("PATCH", "/apis/apps/v1/namespaces/shop/deployments/emails/scale", {}))
    await asyncio.sleep(0)
    leads = False
    for each in others:
        await each.__aexit__(None, None, None)
    with pytest.raises(NotLeading):
        await waiting
    assert sent == []
    with pytest.raises(ClusterError):
        await fenced.send("GET", "/api/v1/pods")
    assert sent == ["GET"] and sum(fenced.made.values()) == sum(requests.made.values()) == 1


def test_who_stands_by_is_ready_unless_it_is_cut_off() -> None:
    """A rollout of two operators waits for ready pods; a spare one is as ready as it can be."""
    assert Health().ready
    assert Health("", "standing by: first holds the Lease").ready
    assert not Health("", "standing by: the API server does not answer", cut_off=True).ready
    assert not Health("the control loop has stood still for 31 s").ready
