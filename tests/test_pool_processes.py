"""WorkerPools whose replicas are processes of this machine: the contract, and what only processes have."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from conftest import SERVERS
from headrace.broker.demand import Demand
from headrace.redis_settings import RedisSettings
from headrace.task import State
from headrace_cli.dev_process import WorkerCommand, WorkerProcess, describe_exit
from headrace_cli.redis_binary import RedisBinary
from headrace_operator.caps import Caps
from headrace_operator.cluster import Conflict
from headrace_operator.fleet import Fleet, Key, Pod
from headrace_operator.hand_on import HandOn
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.manifests import Pool, Ref
from headrace_operator.news import News
from headrace_operator.orders import Order, app_of, order_of
from headrace_operator.processes import ProcessCluster
from headrace_operator.spec import InvalidSpec, read_spec
from headrace_operator.wake import Waker
from headrace_operator.workforce import crews
from pool_contract import SPEC, UNDISTURBED, Fate, PoolContract, Rig, fate, spec, until
from worker_harness import Desk, eventually

KEY = Key("default", "pool")
TEMPLATE = {
    "spec": {
        "containers": [
            {
                "name": "worker", "image": "headrace:test", "args": ["worker", "--app", "cluster.app"],
                "env": [{"name": "HEADRACE_BEAT_S", "value": "0.2"}],
            }
        ]
    }
}  # fmt: skip


class Laptop:
    """The smallest program around the port: what `headrace dev` is, without a screen."""

    def __init__(self, url: str) -> None:
        self.default_grace_s = 2.0
        redis = RedisSettings.parse(url, "the test")
        self.url = url
        self.looker = Looker({"default": redis})
        self.cluster = ProcessCluster(self)
        self.loop = ControlLoop(self.cluster, self.looker, tick_s=1, caps=Caps())
        self.waker = Waker("default", redis, self.loop, self.looker, self.cluster)
        self.hand_on = HandOn(self.looker)
        self.processes: dict[str, WorkerProcess] = {}
        self.launched: list[str] = []
        self.told: list[str] = []
        self.statuses: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._generation = 0

    async def apply(self, spec: dict[str, Any], template: dict[str, Any] | None = None) -> None:
        self._generation += 1
        metadata = {"name": KEY.name, "namespace": KEY.namespace, "uid": "uid", "generation": self._generation}
        error = self.loop.saw_pool({"metadata": metadata, "spec": {"template": template or TEMPLATE, **spec}})
        assert error is None

    def launch(self, pool: Pool, name: str, order: Order) -> WorkerProcess:
        self.launched.append(name)
        environ = {**os.environ, "HEADRACE_URL": self.url, **order.environ, "PYTHONPATH": str(Path(__file__).parent)}
        process = WorkerProcess(name, WorkerCommand(order.arguments, environ), self.lines.append)
        self.processes[name] = process
        return process

    def describe(self, code: int) -> str:
        return describe_exit(code)

    def beating(self, key: Key) -> AbstractSet[str]:
        return crews(each for each in self.loop.look.values() if isinstance(each, Demand)).keys()

    async def ended(self, key: Key, pod: Pod) -> None:
        news = await self.hand_on.act(key, pod, self.loop.pools[key].places())
        self.told += [str(each.reason) for each in news]
        self.loop.wake.set()

    async def show(self, pool: Ref, status: dict[str, Any]) -> None:
        self.statuses.append(status)

    async def tell(self, pool: Ref, news: News) -> None:
        self.told.append(str(news.reason))


@pytest.fixture(scope="session")
def redis_binary() -> RedisBinary:
    """One is enough: what differs between servers is in the scripts, which other tests run on each."""
    found = [each for each in SERVERS.values() if isinstance(each, RedisBinary)]
    if not found:
        pytest.skip("no real Redis server was found")
    return found[-1]


@pytest.fixture
async def laptop(redis_url: str) -> AsyncIterator[Laptop]:
    async with AsyncExitStack() as stack:
        laptop = Laptop(redis_url)
        stack.push_async_callback(laptop.looker.aclose)
        stack.push_async_callback(laptop.cluster.aclose, asyncio.Event())
        stack.push_async_callback(laptop.loop.aclose)
        duties = [asyncio.create_task(laptop.loop.run()), asyncio.create_task(laptop.waker.run())]

        async def end() -> None:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)

        stack.push_async_callback(end)
        yield laptop


class ProcessRig(Rig):
    def __init__(self, laptop: Laptop, desk: Desk) -> None:
        super().__init__(desk, "killed by SIGKILL")
        self._laptop = laptop

    @property
    def fleet(self) -> Fleet:
        return self._laptop.cluster.fleet(KEY)

    async def apply(self, spec: dict[str, Any]) -> None:
        await self._laptop.apply(spec)

    async def kill(self, replica: str) -> None:
        self._laptop.processes[replica].kill()

    async def asked_for(self) -> int | None:
        return self.fleet.asked_for if self.fleet.exists else None

    async def there(self) -> list[str]:
        return [pod.name for pod in self.fleet.pods]

    async def ready(self) -> int:
        return self.fleet.ready

    async def told(self) -> set[str]:
        return set(self._laptop.told)

    async def ticks(self, number: int) -> None:
        numbers = self._laptop.loop.numbers
        end = numbers.ticks + number
        await eventually(lambda: _async(numbers.ticks >= end))


@pytest.fixture
async def rig(laptop: Laptop, redis_url: str) -> AsyncIterator[ProcessRig]:
    async with Desk(redis_url) as desk:
        yield ProcessRig(laptop, desk)


@pytest.mark.slow
class TestProcesses(PoolContract):
    """Processes as replicas."""


# -- what only processes have


@pytest.mark.slow
async def test_one_that_cannot_start_is_tried_again_more_and_more_seldom_and_says_so(
    laptop: Laptop, rig: ProcessRig
) -> None:
    broken = order_template(["worker", "--app", "no_such_module"])
    await laptop.apply(spec(mode="External", replicas=1), broken)

    async def three_starts_and_told() -> bool:
        return len(laptop.launched) >= 3 and any("CrashLoopBackOff" in str(each) for each in laptop.statuses)

    await eventually(three_starts_and_told)
    assert len(set(laptop.launched)) == 1, "the same replica each time"
    ready = next(each for each in laptop.statuses[-1]["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "CrashLoopBackOff")
    assert "(exit code 2) and is started again in " in ready["message"]
    await laptop.apply(spec(mode="External", replicas=0), broken)
    await until(rig.there, [])


@pytest.mark.slow
async def test_new_code_takes_over_when_it_works_and_the_old_one_ends_its_task(laptop: Laptop, rig: ProcessRig) -> None:
    await laptop.apply(spec(mode="External", replicas=1))
    await until(rig.ready, 1)
    task_id = await rig.desk.submit("nap", {"seconds": 2.5})
    old = await rig.running(task_id)
    laptop.cluster.renew(KEY)
    assert rig.fleet.rollout
    await eventually(lambda: _async(not rig.fleet.rollout))
    await eventually(lambda: _async(len(rig.fleet.pods) == 1))
    assert await rig.there() != [old]
    assert fate(await rig.desk.ended(task_id)) in {UNDISTURBED, Fate(State.COMPLETED, 2, 0, 1)}


@pytest.mark.slow
async def test_everything_ends_at_once_when_it_shall(laptop: Laptop, rig: ProcessRig) -> None:
    await laptop.apply(spec(mode="External", replicas=2))
    await until(rig.ready, 2)
    task_id = await rig.desk.submit("nap", {"seconds": 60})
    await rig.running(task_id)
    at_once = asyncio.Event()
    closing = asyncio.create_task(laptop.cluster.aclose(at_once))
    at_once.set()
    async with asyncio.timeout(5):
        await closing
    assert laptop.cluster.names == []
    assert fate(await rig.desk.look(task_id)) == Fate(State.PENDING, 1, 0, 1), "free of charge: we ended it"


async def _async(value: bool) -> bool:
    return value


class Sleeper:
    """A process that only waits for its end."""

    def __init__(self) -> None:
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        return await self.end

    def terminate(self) -> None:
        if not self.end.done():
            self.end.set_result(0)

    def kill(self) -> None:
        if not self.end.done():
            self.end.set_result(-signal.SIGKILL)


class Sleepers(Laptop):
    """Without programs: which of them go is all that counts."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sleeping: list[Sleeper] = []

    def launch(self, pool: Pool, name: str, order: Order) -> Any:
        self.launched.append(name)
        self.sleeping.append(Sleeper())
        return self.sleeping[-1]


@pytest.fixture
async def sleepers(redis_url: str) -> AsyncIterator[Sleepers]:
    made = Sleepers(redis_url)
    made.loop.saw_pool({
        "metadata": {"name": KEY.name, "namespace": KEY.namespace, "uid": "uid", "generation": 1},
        "spec": {"template": TEMPLATE, **SPEC},
    })  # fmt: skip
    await made.cluster.apply(made.loop.pools[KEY].pool)
    yield made
    await made.cluster.aclose(asyncio.Event())
    await made.looker.aclose()


async def scaled(host: Sleepers, number: int) -> list[str]:
    """The last parts of the names that stay."""
    await host.cluster.scale(KEY, number, host.cluster.fleet(KEY))
    await eventually(lambda: _async(len(host.cluster.fleet(KEY).pods) == number))
    return [pod.name.rpartition("-")[2] for pod in host.cluster.fleet(KEY).pods]


async def test_the_cheap_ones_go_first_then_the_newest(sleepers: Sleepers) -> None:
    assert await scaled(sleepers, 4) == ["1", "2", "3", "4"]
    first = sleepers.cluster.fleet(KEY).pods[0].name
    await sleepers.cluster.mark(KEY, [first], cheap=True)
    assert await scaled(sleepers, 3) == ["2", "3", "4"]
    assert await scaled(sleepers, 2) == ["2", "3"]
    assert await scaled(sleepers, 3) == ["2", "3", "5"]


async def test_one_whose_tasks_cannot_be_handed_on_is_started_again_all_the_same(sleepers: Sleepers) -> None:
    async def broken(key: Key, pod: Pod) -> None:
        raise LookupError("not foreseen")

    sleepers.ended = broken  # type: ignore[method-assign]
    await scaled(sleepers, 1)
    await eventually(lambda: _async(len(sleepers.sleeping) == 1))
    sleepers.sleeping[-1].kill()
    await eventually(lambda: _async(len(sleepers.launched) == 2))
    assert sleepers.launched[0] == sleepers.launched[1]


async def test_a_number_that_somebody_else_changed_is_a_conflict(sleepers: Sleepers) -> None:
    before = sleepers.cluster.fleet(KEY)
    await scaled(sleepers, 2)
    with pytest.raises(Conflict):
        await sleepers.cluster.scale(KEY, 1, before)
    assert len(sleepers.cluster.fleet(KEY).pods) == 2
    assert sleepers.cluster.fleet(Key("default", "other")) == Fleet(exists=False)


# -- what of a template a process follows


def order_template(args: list[str], **container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", "image": "shop:1.4", "args": args, **container}]}}


def order(template: dict[str, Any], **changes: Any) -> Order:
    return order_of(Pool("pool", "default", "uid", read_spec({**SPEC, "template": template, **changes})), 2.0)


@pytest.mark.parametrize(
    ("container", "arguments", "said"),
    [
        ({}, ["--app", "shop.tasks"], "the image shop:1.4 is not used"),
        ({"command": ["headrace", "worker"], "args": ["--app", "x"]}, ["--app", "x"], "the image shop:1.4"),
        ({"command": ["python", "-m", "headrace_cli"]}, ["--app", "shop.tasks"], "the image shop:1.4"),
        ({"command": ["celery"], "args": ["worker"]}, [], "the command 'celery worker' is not run"),
        ({"args": []}, [], "as `headrace worker`"),
    ],
)
def test_args_and_command_are_those_of_headrace_worker(
    container: dict[str, Any], arguments: list[str], said: str
) -> None:
    made = order(order_template(**{"args": ["worker", "--app", "shop.tasks"], **container}))
    assert list(made.arguments) == [*arguments, "--metrics-port", "0"]
    assert any(said in sentence for sentence in made.ignored), made.ignored


def test_the_environment_is_that_of_a_pod_with_the_redis_and_ports_of_this_machine() -> None:
    env = [
        {"name": "HEADRACE_URL", "value": "redis://redis.shop.svc:6379"},
        {"name": "COLOUR", "value": "red"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "token"}}},
        {"name": "HEADRACE_CONCURRENCY", "value": "5"},
    ]
    made = order(order_template(["worker"], env=env, resources={}), queues=[{"name": "a"}, {"name": "b", "weight": 3}])
    assert made.environ["HEADRACE_QUEUES"] == "a=1,b=3"
    assert made.environ["HEADRACE_CONCURRENCY"] == "5", "the template wins, as in a cluster"
    assert made.environ["HEADRACE_METRICS_PORT"] == "0" and made.environ["COLOUR"] == "red"
    assert not {"HEADRACE_URL", "TOKEN", "WORKER_ID"} & made.environ.keys()
    assert {
        "HEADRACE_URL: the Redis of this machine is used",
        "TOKEN: taken from your shell's environment",
        "processes do not follow resources",
    } <= set(made.ignored)


def test_the_grace_is_the_pools_if_it_names_one_else_that_of_the_laptop() -> None:
    assert order(order_template(["worker"])).environ["HEADRACE_GRACE_S"] == "15"
    assert order(order_template(["worker"]), worker={}).environ["HEADRACE_GRACE_S"] == "2"
    own = order_template(["worker"])
    own["spec"]["terminationGracePeriodSeconds"] = 12
    assert order(own).environ["HEADRACE_GRACE_S"] == order(own, worker={}).environ["HEADRACE_GRACE_S"] == "7"


def test_the_application_is_found_in_args_or_environment() -> None:
    assert app_of(order(order_template(["worker", "--app=shop.tasks"]))) == "shop.tasks"
    env = [{"name": "HEADRACE_APP", "value": "shop.mail"}]
    assert app_of(order(order_template(["worker"], env=env))) == "shop.mail"
    assert app_of(order(order_template(["worker"]))) == ""


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"containers": []}},
        {},
        order_template(["worker", 1]),  # type: ignore[list-item]
        order_template(["worker"], env=[{"value": "x"}]),
        order_template(["worker"], env=[{"name": {"a": "b"}}]),
    ],
)
def test_a_template_that_a_cluster_refuses_is_refused(template: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.template"):
        order(template)


def test_neither_kopf_nor_kubernetes_is_imported() -> None:
    """They take seconds, and nobody needs them on a laptop."""
    import subprocess

    code = "import sys, headrace_cli.dev_pools; print(sorted({'kopf', 'kubernetes'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
