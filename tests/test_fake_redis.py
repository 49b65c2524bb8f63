"""The scripts on fakeredis, which serves the fallback of `headrace dev` and the users' tests: the same table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import fakeredis
import pytest
from redis.exceptions import ResponseError

from headrace.broker.broker import Call, Queue
from headrace.broker.publishing import publish
from headrace.broker.scripts import all_scripts, without_shebang
from headrace.broker.shared import shared_call
from list_kit import in_every_state, states
from model_desk import Desk
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

    def command(self, *words: Word) -> Any:
        try:
            return cast(Any, self._redis).execute_command(*words)
        except ResponseError as error:
            raise RefusedError(str(error)) from None

    def run(self, call: Call[R]) -> R:
        RAN.add(call.script.name)
        return call.parse(self.command("EVAL", without_shebang(call.script.source), *call.head[2:], *call.args))


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
    assert desk.depth().live == 0
    assert desk.workers() == {}
    assert desk.state(task_id(1)) == "absent"


def test_every_script_was_run() -> None:
    assert all_scripts().keys() == RAN
