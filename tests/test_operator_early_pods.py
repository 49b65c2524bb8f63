"""Ends of pods that the watches show before the pool: what these ran is handed on when the pool is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from headrace_operator.fleet import Ended, Key, Pod
from headrace_operator.hand_on import EARLY, HandOn
from headrace_operator.looker import Looker
from headrace_operator.settings import OperatorSettings
from headrace_operator.term import Term
from operator_kit import KEY, Opener, resource
from worker_harness import eventually

POD = Pod("emails-1", 0.0, ended=Ended(2_000_000_000.0, "OOMKilled, exit code 137", False))


class NoServer:
    """Takes every request."""

    def fenced(self, _: Any) -> NoServer:
        return self

    async def send(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_pod_before_its_pool(scene: Opener, deleted: bool) -> None:
    """Its beats have not been missed yet, so nobody else would take over now."""
    pool = scene()
    await pool.tick()
    await pool.submit()
    await pool.beat("emails-1", running=1)
    await pool.claim("emails-1")
    term = Term(OperatorSettings.from_env({}), {"default": pool.redis}, cast(Any, NoServer()), lambda: True)
    try:
        term._saw_pod(KEY, POD, deleted)
        term.loop.saw_pool(resource())
        term._saw_pool(KEY)

        async def handed_on() -> bool:
            return term.hand_on.handed_on == 1 and not term._tasks

        await eventually(handed_on)
        demand = await pool.client.call(pool.queue.demand(1))
        assert demand.processing == 0 and demand.waiting + demand.due_soon + demand.delayed == 1
        assert term.hand_on.is_new(KEY, POD) is deleted, "of one that is gone nothing is remembered"
    finally:
        await term.aclose()


def test_pools_that_never_come_do_not_fill_the_memory() -> None:
    hand_on = HandOn(Looker({}))
    for number in range(EARLY + 5):
        hand_on.keep(Key("shop", f"pool-{number}"), replace(POD, name=f"pod-{number}"), False)
    assert hand_on.early(Key("shop", "pool-4")) == []
    assert len(hand_on.early(Key("shop", f"pool-{EARLY + 4}"))) == 1
