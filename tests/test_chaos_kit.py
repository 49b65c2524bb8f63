"""The fault kit itself: a checker that misses a fault proves nothing, a plan that cannot be repeated helps nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chaos import ledger, look
from chaos.checker import End, Facts, check
from chaos.ledger import Ledger, Note, Writer
from chaos.nemesis import KINDS, Nemesis, plan
from chaos.proxy import FaultProxy
from chaos.usage import Samples, slope
from headrace.broker.client import AsyncClient
from headrace.errors import StoreUnavailable
from headrace.redis_settings import RedisSettings
from headrace.task import State
from redis_server import RedisServer

A, B = "task-a", "task-b"
DONE = End(State.COMPLETED, 1, 0, 0, 0, 1, (7, 1))


def note(task_id: str, epoch: int = 7, attempt: int = 1) -> Note:
    return Note(task_id, (epoch, attempt), "w", 1.0)


def facts(**changes: Any) -> Facts:
    """One task that was accepted, run once, and completed."""
    good = Facts([A], [], {A: DONE}, Ledger([note(A)], [note(A)]), 1)
    return replace(good, **changes)


def test_a_clean_run_has_nothing_wrong() -> None:
    verdict = check(facts())
    assert verdict.wrong == [] and verdict.reruns == verdict.recovered == 0


TWICE = Ledger([note(A), note(A, attempt=2)], [note(A), note(A, attempt=2)])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seen": {}, "completions": 0}, "lost: task task-a was accepted and is unknown to Redis"),
        (
            {"seen": {A: End(State.PENDING, 0, 0, 0, 0, 0, None)}, "completions": 0},
            "lost: task task-a was accepted and is pending",
        ),
        ({"ledger": TWICE}, "duplicated: task task-a was run 2 times; its record explains 1"),
        (
            {"ledger": Ledger([note(A), note(A)], [note(A)])},
            "duplicated: task task-a was run twice under one token: [(7, 1), (7, 1)]",
        ),
        ({"completions": 2}, "second_completions: Redis counted 2 accepted completions of 1 tasks"),
        (
            {"seen": {A: DONE._replace(completions=2)}, "completions": 1},
            "second_completions: task task-a has 2 completions in its history",
        ),
        (
            {"seen": {A: End(State.COMPLETED, 2, 0, 1, 0, 1, (7, 1))}, "ledger": TWICE},
            "stale: task task-a has the result of attempt 1 of 2",
        ),
        (
            {"ledger": Ledger([note(A), note(B)], [note(A)])},
            "unexpected: task task-b was run, and nobody submitted it",
        ),
        (
            {"ledger": Ledger([note(A)], [])},
            "unexpected: task task-a has the result of (7, 1), a run that nobody finished",
        ),
    ],
)
def test_each_fault_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert check(facts(**changes)).wrong == [sentence]


def test_a_run_after_a_crash_that_is_on_record_is_legal() -> None:
    verdict = check(facts(seen={A: End(State.COMPLETED, 2, 0, 1, 0, 1, (7, 2))}, ledger=TWICE))
    assert verdict.wrong == [] and verdict.reruns == 1


def test_what_the_client_never_heard_of_may_exist() -> None:
    verdict = check(facts(acked=[], unsure=[A, B]))
    assert verdict.wrong == [] and verdict.recovered == 1


def test_after_a_loss_of_redis_a_run_needs_no_record_but_one_token_is_still_used_once() -> None:
    assert check(facts(ledger=TWICE, forgetful=True)).wrong == []
    assert check(facts(ledger=Ledger([note(A), note(A)], [note(A)]), forgetful=True)).duplicated


def test_the_ledger_reads_what_several_processes_wrote(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert ledger.read(path).begun == []
    first, second = Writer(path, "w:1"), Writer(path, "w:2")
    first.begin(A, (7, 1))
    second.begin(B, (7, 2))
    first.end(A, (7, 1))
    first.close()
    second.close()
    seen = ledger.read(path)
    assert [(each.task_id, each.token, each.worker) for each in seen.begun] == [(A, (7, 1), "w:1"), (B, (7, 2), "w:2")]
    assert [each.task_id for each in seen.ended] == [A]


def test_the_ledger_leaves_out_a_line_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    writer = Writer(path, "w:1")
    writer.begin(A, (7, 1))
    writer.close()
    whole = path.read_text()
    for length in range(len(whole)):
        path.write_text(whole + f"B {B} 7 2 w:2 1764000000.000000\n"[:length])
        assert [each.task_id for each in ledger.read(path).begun] == [A]


def test_a_seed_makes_the_same_plan_again_and_every_kind_has_its_turn() -> None:
    faults = plan(5, 3_600)
    assert faults == plan(5, 3_600) != plan(6, 3_600)
    assert {fault.kind for fault in faults[: len(KINDS)]} == set(KINDS)
    gaps = [later.at_s - sooner.at_s for sooner, later in pairwise(faults)]
    assert min(gaps) >= 20 and max(gaps) <= 40 and faults[-1].at_s < 3_600


def test_every_kind_of_fault_can_be_carried_out() -> None:
    assert {name.removeprefix("_") for name in vars(Nemesis) if f"{name.removeprefix('_')}" in KINDS} == set(KINDS)


def test_a_slope_is_that_of_the_line() -> None:
    assert slope([], []) == slope([1], [1]) == slope([1, 1], [1, 2]) == 0
    assert slope([0, 1, 2], [5, 7, 9]) == 2
    grown = Samples("w", [0, 60, 120], [0, 1024**2, 2 * 1024**2], [9, 9, 9])
    assert (round(grown.mib_an_hour()), grown.fds_an_hour(), len(grown.after(50).seconds)) == (60, 0, 2)


def test_what_tasks_leave_behind_is_told_from_what_a_queue_keeps() -> None:
    keys = ("hr:{default/default}:3", "hr:{default}:queues", "hr:{default/default}:body", "hr:{default/default}:once:x")
    left = look.Left(keys, 0, 0, 0)
    assert look.unexpected_keys(left) == ["hr:{default/default}:body", "hr:{default/default}:once:x"]


# -- the proxy


def client_of(proxy: FaultProxy) -> AsyncClient:
    return AsyncClient(RedisSettings.parse(proxy.url, "the test"))


async def test_the_proxy_swallows_each_nth_reply(redis_url: str, redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        client = client_of(proxy)
        await client.command("PING")
        proxy.every(3)
        answers = 0
        for _ in range(12):
            try:
                answers += await client.command("INCR", "counter") is not None
            except StoreUnavailable:
                continue
        proxy.heal()
        assert proxy.faults >= 2 and answers < 12
        assert int(await client.command("GET", "counter")) > answers, "requests arrived whose replies did not"
        await client.aclose()


async def test_half_open_lets_requests_pass_and_nothing_back(redis_url: str, redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        client = client_of(proxy)
        await client.command("PING")
        proxy.half_open()
        asked = asyncio.create_task(client.command("SET", "k", "v"))
        while redis_server.redis.get("k") is None:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.005)
        assert not asked.done()
        proxy.heal()
        with pytest.raises(StoreUnavailable):
            await asked
        assert await client.command("GET", "k") == b"v"
        await client.aclose()


async def test_a_delay_holds_up_both_ways(redis_url: str, redis_server: RedisServer) -> None:
    async with FaultProxy(redis_server.port) as proxy:
        client = client_of(proxy)
        await client.command("PING")
        proxy.delay_s = 0.05
        began = asyncio.get_running_loop().time()
        await client.command("PING")
        assert asyncio.get_running_loop().time() - began >= 0.1
        await client.aclose()
