"""The rules of a world as a Hypothesis state machine: slower than the explorer, but its examples are shortest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from model_end import heal
from model_redis import Wire
from model_rules import RULES, Rule
from model_world import World


@dataclass
class Drawn:
    """Dice that Hypothesis throws."""

    data: st.DataObject

    def below(self, n: int) -> int:
        return self.data.draw(st.integers(0, n - 1))


def machine(wire: Wire) -> type[RuleBasedStateMachine]:
    """A machine whose examples run against this server."""

    def start(self: Any) -> None:
        RuleBasedStateMachine.__init__(self)
        self.world = World(wire)

    def teardown(self: Any) -> None:
        heal(self.world)

    rules = {one.name: rule(data=st.data())(_step(one)) for one in RULES}
    return type("AnyOrder", (RuleBasedStateMachine,), {"__init__": start, "teardown": teardown, **rules})


def _step(one: Rule) -> Callable[[Any, st.DataObject], None]:
    def step(self: Any, data: st.DataObject) -> None:
        one.do(self.world, Drawn(data))

    step.__name__ = one.name
    return step
