"""Which replicas go: never one that runs a task, whatever the order of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_operator import troubles
from headrace_operator.drain import NEVER_TOLD, Policy, Replica, Shrink, shrink


def step(replicas: list[Replica], wanted: int, policy: Policy = "IdleOnly", now_s: float = 0.0) -> Shrink:
    """Without `leave`, which repeats what the others say."""
    found = shrink(replicas, wanted=wanted, asked_for=len(replicas), policy=policy, now_s=now_s, timeout_s=60.0)
    return replace(found, leave=())


def test_an_idle_one_is_asked_first_and_taken_when_it_answered() -> None:
    idle, busy = Replica("idle", 1.0, 0), Replica("busy", 2.0, 3)
    assert step([idle, busy], 1) == Shrink(ask=("idle",))
    asked = replace(idle, asked_s=0.0)
    assert step([asked, busy], 1) == Shrink(), "it has not answered yet"
    assert step([replace(asked, answered=True), busy], 1) == Shrink(remove=("idle",))


def test_the_order_is_unborn_idle_newest() -> None:
    replicas = [Replica("old", 1.0, 0), Replica("new", 2.0, 0), Replica("unborn", 0.0)]
    assert step(replicas, 2) == Shrink(ask=("unborn",), remove=("unborn",))
    assert step(replicas, 1).ask == ("unborn", "new")


def test_busy_ones_stay_under_idle_only() -> None:
    assert step([Replica("a", 1.0, 1), Replica("b", 2.0, 2)], 0) == Shrink()


def test_busy_ones_are_asked_under_graceful_and_taken_when_done() -> None:
    assert step([Replica("a", 1.0, 1)], 0, "Graceful") == Shrink(ask=("a",))
    assert step([Replica("a", 1.0, 1, asked_s=0.0, answered=True)], 0, "Graceful") == Shrink()


def test_one_that_claimed_in_the_last_moment_finishes_first() -> None:
    """It was idle when it was asked, and its answer says that it has a task."""
    late = Replica("late", 1.0, 1, asked_s=0.0, answered=True)
    assert step([late, Replica("idle", 0.0, 0)], 1) == Shrink(), "and nobody else is asked in its stead"


def test_what_the_cluster_may_still_take_away_is_not_set_to_work_again() -> None:
    """The number was lowered for it and raised again; only the cluster knows by which of both it acts."""
    marked = Replica("marked", 1.0, 0, asked_s=0.0, answered=True, cheap=True)
    other = replace(marked, name="other", cheap=False)
    given: Any = {"wanted": 5, "asked_for": 5, "policy": "IdleOnly", "now_s": 1.0, "timeout_s": 60.0}
    early = shrink([replace(marked, doomed=True), other], **given)
    assert (early.release, early.leave, early.remove) == (("other",), ("marked",), ())
    assert shrink([marked, other], **given).release == ("marked", "other")


def test_what_is_needed_after_all_is_released() -> None:
    asked = Replica("a", 1.0, 0, asked_s=0.0, answered=True)
    assert step([asked], 1) == Shrink(release=("a",))


def test_of_too_many_asked_the_idle_ones_stay_asked() -> None:
    done = Replica("done", 1.0, 0, asked_s=0.0, answered=True)
    at_work = Replica("work", 2.0, 1, asked_s=0.0, answered=True)
    assert step([done, at_work], 1) == Shrink(release=("work",), remove=("done",))


def test_what_is_not_there_yet_needs_no_drain() -> None:
    found = shrink([Replica("a", 1.0, 2)], wanted=1, asked_for=3, policy="IdleOnly", now_s=0.0, timeout_s=60.0)
    assert found == Shrink(missing=2)
    assert found.fewer == 2


def test_a_drain_that_lasts_is_told_and_not_ended() -> None:
    slow = Replica("slow", 1.0, 1, asked_s=0.0, answered=True)
    assert step([slow], 0, "Graceful", now_s=61.0) == Shrink(overdue=("slow",))


def test_a_drained_one_that_stays_for_one_that_is_not_ready_is_told() -> None:
    """Not at once: whoever starts is not ready for a while."""
    done = Replica("done", 1.0, 0, asked_s=0.0, answered=True)
    unready = Replica("unready", 2.0, 1, ready=False)
    assert step([done, unready], 1, now_s=60.0) == Shrink()
    late = step([done, unready], 1, now_s=61.0)
    assert late == Shrink(kept=("done",), unready=("unready",))
    found = troubles.overdue(late, 60.0)
    assert found is not None and found.reason == "OthersNotReady"
    assert found.message.startswith("done: drained and kept") and ": unready (" in found.message
    assert step([done, replace(unready, ready=True)], 1, now_s=61.0) == Shrink(remove=("done",))


replicas_strategy = st.lists(
    st.builds(
        Replica,
        st.uuids().map(str),
        st.floats(0, 100),
        st.sampled_from([NEVER_TOLD, 0, 1, 5]),
        st.none() | st.floats(0, 100),
        st.booleans(),
    ),
    max_size=8,
)
policies: st.SearchStrategy[Policy] = st.sampled_from(["IdleOnly", "Graceful"])


@given(replicas_strategy, st.integers(0, 10), st.integers(0, 12), policies, st.floats(0, 500))
def test_promises(replicas: list[Replica], wanted: int, asked_for: int, policy: Policy, now_s: float) -> None:
    found = shrink(replicas, wanted=wanted, asked_for=asked_for, policy=policy, now_s=now_s, timeout_s=60.0)
    by_name = {each.name: each for each in replicas}
    for name in found.remove:
        assert by_name[name].running <= 0, "what runs a task is never taken"
        assert not by_name[name].began or by_name[name].answered, "what works is asked before"
    assert found.fewer <= max(0, asked_for - wanted), "never more than is too many"
    assert not set(found.ask) & set(found.release)
    assert not set(found.remove) & set(found.release)
    if policy == "IdleOnly":
        assert all(not by_name[name].busy for name in found.ask)
    if wanted >= asked_for:
        assert not found.ask
        assert not found.fewer
    going = [each for each in replicas if each.name in found.remove]
    if found.fewer:
        rest = [each for each in replicas if each not in going]
        assert all(each.ready or each.removable for each in rest), "the cluster would stop that one instead"


def test_nobody_takes_the_place_of_those_that_are_on_their_way_out() -> None:
    """The number was lowered for the marked ones; one that was asked since is the one to be released."""
    marked = [Replica(f"marked-{n}", 1.0, 0, asked_s=0.0, answered=True, cheap=True) for n in range(2)]
    late = Replica("late", 1.0, 0, asked_s=1.0)
    found = shrink([late, *marked], wanted=1, asked_for=1, policy="Graceful", now_s=2.0, timeout_s=60.0)
    assert found.release == ("late",)
    assert found.leave == ("marked-0", "marked-1")


@pytest.mark.parametrize("policy", ["IdleOnly", "Graceful"])
def test_a_mark_alone_makes_nobody_the_one_to_be_asked(policy: Policy) -> None:
    """It is left from a shrink that was called off: who runs nothing is asked before who runs a task."""
    marked = Replica("busy", 1.0, 1, cheap=True)
    assert step([marked, Replica("idle", 0.0, 0)], 1, policy).ask == ("idle",)
