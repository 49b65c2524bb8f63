"""Tasks that were running when their worker died, run by workers of their own: larger ones, say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from headrace import App
from headrace.broker.broker import Reclaim
from headrace.broker.demand import Demand, Part, WorkerBeat
from headrace.runtime.policy import late_order, order_of
from headrace.settings import WorkerSettings
from headrace.task import State
from headrace_operator.decide import decide
from headrace_operator.fleet import Fleet
from headrace_operator.history import History
from headrace_operator.loop import this_moment
from headrace_operator.manifests import Pool, environment
from headrace_operator.observed import Observed
from headrace_operator.spec import read_spec
from headrace_operator.troubles import left_suspects
from headrace_operator.workforce import load, unseen
from operator_kit import Opener
from worker_harness import Desk, working

ran: list[str] = []


@pytest.fixture
def app() -> App[None]:
    made = App("suspects")
    ran.clear()

    @made.task()
    async def quick(name: str = "") -> None:
        ran.append(name)

    return made


@pytest.fixture
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    made = Desk(redis_url)
    await made.client.call(made.queue.init())
    yield made
    await made.client.aclose()


async def suspect(desk: Desk) -> str:
    """A task whose first worker died of it."""
    task_id = await desk.submit("quick", {"name": "suspect"})
    await desk.client.call(desk.queue.cycle("dead:1", 1))
    await desk.client.call(desk.queue.reclaim(Reclaim("dead:1", "*", "n", cause="OOMKilled, exit code 137")))
    return task_id


def settings(given: str) -> dict[str, Any]:
    return {"suspects": WorkerSettings.from_env({"HEADRACE_SUSPECTS": given}).suspects}


async def test_a_worker_that_leaves_them_runs_all_else(app: App[None], desk: Desk, redis_url: str) -> None:
    waits = await suspect(desk)
    async with working(app, redis_url, **settings("leave")):
        await desk.ended(await desk.submit("quick", {"name": "new"}))
        await asyncio.sleep(0.1)
        assert (await desk.look(waits)).state is State.PENDING
    assert ran == ["new"]


async def test_a_worker_for_them_only_runs_nothing_else(app: App[None], desk: Desk, redis_url: str) -> None:
    """It does not wait for markers either: that of a plain task would be lost on it."""
    crashed = await suspect(desk)
    new = await desk.submit("quick", {"name": "new"})
    async with working(app, redis_url, **settings("only")):
        await desk.ended(crashed)
        assert (await desk.look(new)).state is State.PENDING
        async with working(app, redis_url, worker_id="plain", **settings("leave")):
            for number in range(20):
                await asyncio.wait_for(desk.ended(await desk.submit("quick", {"name": str(number)})), 1.0)
    assert ran[0] == "suspect"


def test_the_order_of_streams() -> None:
    assert [order_of(each) for each in ("run", "leave", "only")] == ["rs3210", "r3210", "s"]
    assert late_order({"0": 0}, 10_000, 1, "r3210") == "0r321"
    assert late_order({"0": 0}, 10_000, 1, "s") == "s"


@pytest.mark.parametrize("given", ["never", "mail=some", "mail=only,mail=run"])
def test_what_cannot_be_read_is_refused(given: str) -> None:
    with pytest.raises(Exception, match="HEADRACE_SUSPECTS"):
        WorkerSettings.from_env({"HEADRACE_SUSPECTS": given})


# the operator


SMALL = {"name": "default", "suspects": "Leave"}
LARGE = {"name": "default", "suspects": "Only"}


def demand(plain: int, suspects: int) -> Demand:
    part = Part(suspects, 1 if suspects else 0, 7.0)
    return Demand(plain + suspects, part.processing, 3, 2, 1, 9.0, False, {}, {}, suspects=part)


def test_each_pool_looks_at_its_part() -> None:
    seen = demand(40, 3)
    both, rest, only = (load("default", seen, 0, each) for each in ("Run", "Leave", "Only"))
    assert (both.pending, both.processing, both.due_soon, both.parked) == (43, 1, 2, 1)
    assert (rest.pending, rest.processing, rest.due_soon, rest.parked) == (40, 0, 2, 1)
    assert (only.pending, only.processing, only.due_soon, only.parked, only.oldest_s) == (3, 1, 0, 0, 7.0)


def test_one_suspect_a_replica() -> None:
    """A worker holds no more than one of them a queue, whatever its concurrency."""
    spec = read_spec({"queues": [LARGE], "scaling": {"maxReplicas": 20}, "worker": {"expectedTaskSeconds": 10}})
    observed = Observed((load("default", demand(0, 5), 0, "Only"),), 1)
    decision = decide(spec, observed, History(since_s=-10_000.0), this_moment())
    assert decision.replicas == 6
    assert "1 a replica" in decision.message


def test_workers_are_told() -> None:
    def told(*queues: Any) -> dict[str, Any]:
        spec = read_spec({"queues": list(queues), "scaling": {"maxReplicas": 1}})
        return {each["name"]: each.get("value") for each in environment(Pool("p", "n", "u", spec))}

    assert told(SMALL, {"name": "mail"})["HEADRACE_SUSPECTS"] == "default=leave"
    assert "HEADRACE_SUSPECTS" not in told({"name": "default"}), "older images do not know it"


def test_that_they_wait_for_another_pool_is_said() -> None:
    spec = read_spec({"queues": [SMALL], "scaling": {"maxReplicas": 1}})
    found = left_suspects(spec, [("default", demand(0, 3))])
    assert found is not None and found.status is None
    assert found.message.startswith("3 in queue default were running when a worker died")
    assert left_suspects(spec, [("default", demand(3, 0))]) is None
    assert left_suspects(read_spec({"queues": [{"name": "default"}], "scaling": {"maxReplicas": 1}}),
                         [("default", demand(0, 3))]) is None  # fmt: skip


def test_pods_of_a_pool_with_a_longer_name_are_not_those_of_this_one() -> None:
    """Both pools' workers beat in one queue; taken for unseen pods of this one, they would keep it from shrinking."""
    beats = {f"{pod}:1": WorkerBeat(1, 0) for pod in ("images-large-5d7c9b8f46-x2x7k", "images-5d7c9b8f46-abcde")}
    both = replace(demand(0, 0), workers=beats)
    assert (unseen(Fleet(), [both], "images"), unseen(Fleet(), [both], "images-large")) == (1, 1)


async def test_a_pool_for_suspects_sleeps_while_plain_tasks_wait(scene: Opener) -> None:
    pool = scene(queues=[LARGE])
    [steering] = pool.loop.pools.values()
    assert steering.woken_by() == []
    await pool.submit(100)
    await pool.ticks(2)
    assert pool.replicas == 0
    await pool.client.call(pool.queue.cycle("dead:1", 2))
    await pool.client.call(pool.queue.reclaim(Reclaim("dead:1", "*", "n", cause="OOMKilled, exit code 137")))
    await pool.tick()
    assert pool.replicas == 1
