"""How simulated pods start: each by itself, or on a node that they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.autoscaling.events import Agenda
from bench.autoscaling.starts import Lognormal, SharedNode, Start, StartUp


def ready_s(start_up: StartUp, made_s: Sequence[float]) -> list[float]:
    """When each of them is ready, by when it is made."""
    agenda, found = Agenda(), [-1.0] * len(made_s)
    begin = start_up.begin(agenda)

    def make(number: int) -> None:
        begin(Start(number, 0, 1, lambda: found.__setitem__(number, agenda.now_s)))

    for number, s in enumerate(made_s):
        agenda.at(s, partial(make, number))
    agenda.run(lambda: False, 1e6)
    return found


def test_who_starts_by_itself_is_slowed_by_nobody() -> None:
    node = Lognormal(5.0, seed=3)
    assert ready_s(node, [0.0, 0.0, 7.0]) == [node.seconds(0), node.seconds(1), 7.0 + node.seconds(2)]


def test_one_start_has_a_shared_node_for_itself() -> None:
    assert ready_s(SharedNode(0.5), [1.0, 9.0]) == pytest.approx([1.5, 9.5])
    assert ready_s(SharedNode(0.5, apart_s=0.2), [1.0, 9.0]) == pytest.approx([1.7, 9.7])


def test_many_that_start_together_take_as_many_times_as_long_and_some_are_early() -> None:
    found = ready_s(SharedNode(0.5), [0.0] * 20)
    assert max(found) == pytest.approx(10.0)
    assert 0.5 < min(found) < 5.0


def test_who_comes_later_slows_down_who_starts_already() -> None:
    alone, beside = (ready_s(SharedNode(0.4), [0.0] * 5 + [1.0] * later)[:5] for later in (0, 15))
    assert max(alone) == pytest.approx(2.0)
    assert sorted(beside) > sorted(alone)
    assert max(beside) > 3.0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_shared_node_is_never_idle_while_one_starts_and_does_nothing_twice(made_s: list[float], seed: int) -> None:
    made_s.sort()
    busy_until_s = 0.0
    for s in made_s:
        busy_until_s = max(busy_until_s, s) + 0.3
    found = ready_s(SharedNode(0.3, seed=seed), made_s)
    assert max(found) == pytest.approx(busy_until_s)
    assert all(ready >= made + 0.3 - 1e-9 for made, ready in zip(made_s, found, strict=True))
