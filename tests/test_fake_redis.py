"""The scripts on fakeredis, which serves the fallback of `headrace dev` and the users' tests: the same table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import fakeredis
import pytest
from redis.exceptions import ResponseError

from headrace import audit
from headrace.broker.broker import Call, Queue
from headrace.broker.publishing import publish
from headrace.broker.scripts import all_scripts, without_shebang
from headrace.broker.shared import shared_call
from headrace.broker.spending import spend
from headrace.bulk import Jobs, Order
from headrace.rates import Rate
from list_kit import in_every_state, states
from model_desk import NOW, Desk
from model_picture import picture
from model_redis import RefusedError, Wire, Word
from model_task import QUEUE, task_id
from test_scripts import CYCLE, PASSES, REQUESTS, SUBMIT, Row, Stage

R = TypeVar("R")

RAN: set[str] = set()
"""Scripts that a test called."""


class FakeWire(Wire):
    """As Wire, on a fakeredis of its own."""

    def __init__(self) -> None:
        self._redis = fakeredis.FakeRedis(protocol=2)
        self._redis.response_callbacks.clear()

    def close(self) -> None:
        self._redis.close()

    def pipeline(self, *commands: Sequence[Word]) -> list[Any]:
        return [self.command(*command) for command in commands]

    def command(self, *words: Word) -> Any:
        try:
            return cast(Any, self._redis).execute_command(*words)
        except ResponseError as error:
            raise RefusedError(str(error)) from None

    def run(self, call: Call[R]) -> R:
        RAN.add(call.script.name)
        return call.parse(self.command("EVAL", without_shebang(call.script.source), *call.words[2:]))


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(FakeWire(), Queue(QUEUE))
    desk.init()
    yield desk
    desk.wire.close()


@pytest.mark.parametrize("row", SUBMIT + CYCLE + PASSES + REQUESTS, ids=str)
def test_one_call(desk: Desk, row: Row) -> None:
    stage = Stage(desk)
    row.seed(stage)
    desk.drop_marker()
    desk.raw("DEL", "journal")
    assert row.act(stage) == row.answer
    assert picture(desk) == row.after


def test_lists_are_the_same(desk: Desk) -> None:
    expected = in_every_state(desk)
    assert states(desk) == states(desk, limit=1) == states(desk, limit=50, budget=1) == expected


def test_the_scripts_of_no_row_run_too(desk: Desk) -> None:
    assert desk.wire.run(desk.queue.enlist())
    assert desk.wire.run(shared_call("queues", "default", (), list)) == [QUEUE.encode()]
    assert desk.wire.run(publish("default", {"noop": b"{}"})) == 0
    assert desk.wire.run(shared_call("types", "default", (), len)) == 2
    assert [desk.wire.run(shared_call("secret", "default", (each,), bytes)) for each in ("a", "b")] == [b"a", b"a"]
    assert desk.wire.run(desk.queue.progress("w", [task_id(1), b'{"done":1}', task_id(2), b""]))
    assert desk.wire.run(desk.queue.find([task_id(1)]))[0] is None
    assert desk.wire.run(desk.queue.ask_to_drain(["w"])) == 0
    assert not desk.wire.run(desk.queue.demand(1.0)).paused
    assert desk.depth().live == 0
    assert desk.workers() == {}
    assert desk.state(task_id(1)) == "absent"


class Caller:
    """As AsyncClient, on the fake."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def call(self, call: Call[R]) -> R:
        return self.wire.run(call)

    async def command(self, *words: Word) -> Any:
        return self.wire.command(*words)


async def test_a_bulk_job_runs(desk: Desk) -> None:
    jobs = Jobs(Caller(desk.wire), "default")
    begun = await jobs.start(Order("cancel", ids=(task_id(1),), who="ops"))
    work = await jobs.take("me")
    assert work is not None and work.id == begun.id
    assert await jobs.save(work, "me", ()) == "running"
    assert (await jobs.abort(begun.id)).state == "aborting"
    assert await jobs.save(work, "me", ()) == "aborted"


async def test_the_audit_log_is_written(desk: Desk) -> None:
    caller = Caller(desk.wire)
    await audit.record(caller, "default", audit.Entry("ops", "queue.pause", "default"))
    assert [entry.entry.who for entry in (await audit.page(caller, "default")).entries] == ["ops"]


def test_a_bucket_gives_what_it_holds(desk: Desk) -> None:
    taken = [desk.wire.run(spend("default", "token:ci", Rate(2, "s"), 1, now_ms=NOW)).taken for _ in range(3)]
    assert taken == [1, 1, 0]


def test_every_script_was_run() -> None:
    assert all_scripts().keys() == RAN
