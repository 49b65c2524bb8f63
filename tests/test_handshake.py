"""A worker that is asked to drain claims no more and says so; released, it works on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from headrace import App
from headrace.broker.demand import Demand, WorkerBeat
from headrace.task import State
from worker_harness import Desk, eventually, shares, working


@dataclass
class Gate:
    """Handlers of `held` wait here."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def app(gate: Gate) -> App[None]:
    made = App("handshake")

    @made.task()
    async def held() -> None:
        gate.running += 1
        await gate.opened.wait()

    @made.task()
    async def quick() -> None:
        pass

    return made


@pytest.fixture
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    made = await opened(redis_url, "default")
    yield made
    await made.close()


async def opened(url: str, queue: str) -> Desk:
    made = Desk(url, queue)
    await made.client.call(made.queue.init())
    return made


async def demand(desk: Desk) -> Demand:
    return await desk.client.call(desk.queue.demand(1))


async def beat(desk: Desk) -> WorkerBeat:
    [found] = (await demand(desk)).workers.values()
    return found


async def ask(desk: Desk) -> str:
    """Ask the one worker to drain; returns once it said that it does."""
    name: str = await eventually(lambda: _name(desk))
    await desk.client.call(desk.queue.ask_to_drain([name]))
    await eventually(lambda: _draining(desk))
    return name


async def _name(desk: Desk) -> str | None:
    return next(iter((await demand(desk)).workers), None)


async def _draining(desk: Desk) -> bool:
    return (await beat(desk)).draining


async def test_a_draining_worker_finishes_what_it_has_and_takes_nothing_new(
    app: App[None], desk: Desk, gate: Gate, redis_url: str
) -> None:
    async with working(app, redis_url) as worker:
        first = await desk.submit("held")
        await desk.until(first, lambda seen: seen.state is State.PROCESSING)
        await ask(desk)
        assert (await beat(desk)).running == 1
        second = await desk.submit("quick")
        gate.opened.set()
        await desk.ended(first)
        idle = await eventually(lambda: _idle(desk))
        assert idle.draining
        assert (await desk.look(second)).state is State.PENDING
        assert not worker.executor.running


async def _idle(desk: Desk) -> WorkerBeat | None:
    found = await beat(desk)
    return found if found.running == 0 else None


async def test_released_it_claims_what_came_meanwhile(app: App[None], desk: Desk, redis_url: str) -> None:
    async with working(app, redis_url):
        name = await ask(desk)
        waiting = await desk.submit("quick")
        assert (await desk.look(waiting)).state is State.PENDING
        await desk.client.call(desk.queue.release_from_drain([name]))
        await desk.ended(waiting)


async def test_the_marker_that_a_draining_worker_pops_wakes_another(app: App[None], desk: Desk, redis_url: str) -> None:
    """Ten submissions, one by one, each of which may wake the drained one first."""
    async with working(app, redis_url, worker_id="first"):
        await ask(desk)
        async with working(app, redis_url, worker_id="second"):
            for _ in range(10):
                await desk.ended(await desk.submit("quick"))


async def test_asked_in_one_queue_it_drains_in_all(app: App[None], desk: Desk, redis_url: str) -> None:
    other = await opened(redis_url, "mail")
    async with working(app, redis_url, queues=shares("default", "mail")):
        await ask(desk)
        waiting = await other.submit("quick")
        await eventually(lambda: _draining(other))
        assert (await other.look(waiting)).state is State.PENDING
    await other.close()


async def test_a_beat_tells_how_long_tasks_take_and_of_which_types(app: App[None], desk: Desk, redis_url: str) -> None:
    async with working(app, redis_url):
        assert (await eventually(lambda: _name(desk))).startswith("test:")
        assert (await beat(desk)).mean_s is None
        await desk.ended(await desk.submit("quick"))
        told = await eventually(lambda: _told(desk))
        assert told.mean_s is not None and 0 < told.mean_s < 1
        [only] = told.types
        assert (only.name, only.share) == ("quick", 1.0)
        assert only.seconds == pytest.approx(told.mean_s, abs=1e-5)


async def test_each_queue_tells_of_its_own_tasks(app: App[None], desk: Desk, gate: Gate, redis_url: str) -> None:
    """Queues of one worker whose tasks take an hour and a moment must not be told as one."""
    other = await opened(redis_url, "mail")
    async with working(app, redis_url, queues=shares("default", "mail")):
        await desk.ended(await desk.submit("quick"))
        await other.submit("held")
        await eventually(lambda: _told(desk))
        await eventually(lambda: _runs(other))
        assert [each.name for each in (await beat(desk)).types] == ["quick"]
        assert (await beat(other)).types == () and (await beat(other)).mean_s is None
        gate.opened.set()
        told = await eventually(lambda: _told(other))
        assert [each.name for each in told.types] == ["held"]
    await other.close()


async def _told(desk: Desk) -> WorkerBeat | None:
    found = await beat(desk)
    return found if found.mean_s is not None else None


async def _runs(desk: Desk) -> bool:
    return (await beat(desk)).running > 0
