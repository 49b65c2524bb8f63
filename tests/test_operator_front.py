"""What stands in front of a real API server refuses or keeps silent, and a leader is frozen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from api_proxy import ApiProxy, Write
from chaos.rounds import tell
from control_plane import ControlPlane
from headrace_operator import handlers
from headrace_operator.requests import connect
from headrace_operator.settings import OperatorSettings
from headrace_operator.term import Term
from operator_yard import Yard, operating, seconds_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]
CONVERGED_S: Final = 15.0
TAKEN_OVER_S: Final = 20.0
SCALE: Final = "/scale"


@pytest.fixture
async def proxy(plane: ControlPlane) -> AsyncIterator[ApiProxy]:
    async with ApiProxy(plane) as made:
        yield made


# refusals


def status(code: int, **headers: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": f"no ({code})"}
    return web.json_response(
        body, status=code, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def answer(name: str) -> web.Response:
    """A fresh one for each request."""
    code, _, rest = name.partition(" ")
    if rest == "page":
        return web.Response(status=int(code), text="<h1>Bad gateway</h1>", content_type="text/html")
    return status(int(code), Retry_After=rest) if rest else status(int(code))


REFUSALS: Final = (
    "401", "409", "410", "429 1", "429 3600", "429 Mon, 30 Nov 2026 12:00:00 GMT", "500", "502 page", "503 2", "504",
    "200 page",
)  # fmt: skip


async def test_no_refusal_ends_it_and_it_goes_on_when_that_is_over(at: Yard, proxy: ApiProxy, tmp_path: Path) -> None:
    """Its watches are cut, every request is refused; meanwhile somebody changes the pool."""
    async with operating(proxy.kubeconfig(tmp_path), at, tmp_path / "log") as process:
        await at.pool(scaling={"minReplicas": 1})
        await at.at(1)
        for number, name in enumerate(REFUSALS):
            wanted = 2 + number % 2
            proxy.instead = lambda request, name=name: refuse(request, name)  # type: ignore[misc]
            proxy.cut()
            asked = proxy.asked
            await at.pool(scaling={"minReplicas": wanted})
            await seconds_until(lambda asked=asked: _more(proxy, asked), "a request that is refused")  # type: ignore[misc]
            await asyncio.sleep(2)
            assert process.returncode is None, name
            assert await at.replicas() != wanted or name == "410", "nothing passed"
            proxy.instead = lambda _: None
            took_s = await at.at(wanted)
            tell(f"{name}: {took_s:.1f} s")
            assert took_s < CONVERGED_S, name


def refuse(request: web.Request, name: str) -> web.Response | None:
    writes, lists = request.method != "GET", request.method == "GET"
    passes = {"409": not writes, "410": not lists}.get(name, False)
    return None if passes else answer(name)


async def _more(proxy: ApiProxy, asked: int) -> bool:
    return proxy.asked > asked + 2


# silence


async def test_a_watch_that_falls_silent_is_begun_anew(
    at: Yard, proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stands, and nothing comes any more; requests go on. Seventy seconds are two here."""
    monkeypatch.setattr(handlers, "SILENT_S", 2.0)
    monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig(tmp_path)))
    requests, stop = await connect(str(proxy.kubeconfig(tmp_path))), asyncio.Event()
    term = Term(OperatorSettings(namespaces=(at.namespace,)), {}, requests, lambda: True)
    running = asyncio.create_task(term.run(stop, None, "me", lambda: None))
    try:
        await at.pool(mode="External", replicas=1)
        await seconds_until(lambda: _knows(term, 1), "the pool as it was")
        proxy.silence()
        await at.pool(mode="External", replicas=4)
        assert await seconds_until(lambda: _knows(term, 4), "the pool as it is") < CONVERGED_S
        assert not running.done()
    finally:
        stop.set()
        await asyncio.wait([running], timeout=20)
        await term.aclose()
        await requests.aclose()
    await running


async def _knows(term: Term, replicas: int) -> bool:
    return any(each.pool.spec.replicas == replicas for each in term.loop.pools.values())


# a leader that is frozen


async def test_a_frozen_leader_is_followed_and_writes_nothing_when_it_awakes(
    at: Yard, plane: ControlPlane, tmp_path: Path
) -> None:
    lease: Any = {"lease": "true", "lease_namespace": at.namespace}
    async with (
        ApiProxy(plane) as one,
        ApiProxy(plane) as two,
        operating(one.kubeconfig(tmp_path), at, tmp_path / "1", identity="first", **lease) as first,
    ):
        await at.pool(scaling={"minReplicas": 1})
        await at.at(1)
        async with operating(two.kubeconfig(tmp_path), at, tmp_path / "2", identity="second", **lease):
            await seconds_until(lambda: _asked(two), "a second one that waits")
            first.send_signal(signal.SIGSTOP)
            await at.pool(scaling={"minReplicas": 3})
            took_s = await at.at(3, timeout_s=60)
            tell(f"taken over within {took_s:.1f} s")
            assert took_s < TAKEN_OVER_S
            await seconds_until(lambda: at.staffed(3), "three pods that work")
            before = len(one.writes)
            first.send_signal(signal.SIGCONT)
            await at.pool(scaling={"minReplicas": 2})
            await at.at(2, works=True)
            await asyncio.sleep(3)
            assert one.writes[before:] == []


async def _asked(proxy: ApiProxy) -> bool:
    return proxy.asked > 0


async def test_what_a_frozen_leader_had_sent_is_refused_when_it_arrives(
    at: Yard, plane: ControlPlane, tmp_path: Path
) -> None:
    """The write of its number is on the way for as long as it takes another one to lead."""
    lease: Any = {"lease": "true", "lease_namespace": at.namespace}
    held, free = asyncio.Event(), asyncio.Event()
    async with (
        ApiProxy(plane) as one,
        ApiProxy(plane) as two,
        operating(one.kubeconfig(tmp_path), at, tmp_path / "1", identity="first", **lease) as first,
    ):
        await at.pool(scaling={"minReplicas": 1})
        await at.at(1)

        async def hold(write: Write, when: str) -> web.Response | None:
            if write.path.endswith(SCALE) and when == "before":
                first.send_signal(signal.SIGSTOP)
                held.set()
                await free.wait()
            return None

        one.around = hold
        async with operating(two.kubeconfig(tmp_path), at, tmp_path / "2", identity="second", **lease):
            await seconds_until(lambda: _asked(two), "a second one that waits")
            await at.pool(scaling={"minReplicas": 5})
            await asyncio.wait_for(held.wait(), 20)
            await at.pool(scaling={"minReplicas": 3})
            await at.at(3, timeout_s=60)
            free.set()
            late = next(each for each in one.writes if each.path.endswith(SCALE) and each.body["spec"]["replicas"] == 5)
            await seconds_until(lambda: _answered(one, late), "an answer to the late write")
            first.send_signal(signal.SIGCONT)
            assert one.statuses[late.number] == 409
            await asyncio.sleep(3)
            assert await at.replicas() == 3


async def _answered(proxy: ApiProxy, write: Write) -> bool:
    return write.number in proxy.statuses
