"""What goes wrong, grouped: dead letters and tasks that will be retried, by type, exception and place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from headrace.blame import last_failure, place_of
from headrace.broker.broker import Queue, TaskView
from headrace.client import Steps
from headrace.filters import EVERY_TASK, Filter
from headrace.listing import BUDGET, Ask, Caller, Page, carry_out, look_through
from headrace.task import State

STATES: Final = (State.FAILED, State.RETRYING)
AT_ONCE: Final = 200
"""Tasks that are taken in one go, so that the event loop is not held up."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that are most likely one fault."""

    type: str
    """'' for entries that headrace did not write."""
    exception: str
    place: str
    """`folder/file.py:function`, `-` where there was no traceback."""
    count: int
    """Tasks, of those that were looked at."""
    first_ms: int | None
    last_ms: int | None
    """When the first and the last of them failed."""
    sample: TaskView
    """The last one."""
    filter: str
    """The filter that finds them."""


@dataclass(frozen=True, slots=True)
class Failures:
    """All groups, the largest first."""

    groups: list[FailureGroup]
    scanned: int
    truncated: bool
    """There are more failures than were looked at; counts are at least so many."""


async def failures(
    client: Caller,
    queues: Sequence[Queue],
    filter: Filter = EVERY_TASK,
    budget: int = BUDGET,
) -> Failures:
    """Group what failed or is retrying in these queues and matches. Raises StoreUnavailable, RedisError."""
    return await carry_out(group(queues, filter, budget), client)


@dataclass(slots=True)
class _Group:
    sample: TaskView
    first_ms: int
    last_ms: int
    count: int = 0


_Key = tuple[str, str, str]


def group(queues: Sequence[Queue], filter: Filter = EVERY_TASK, budget: int = BUDGET) -> Steps[Failures]:
    """The steps of `failures`, for every kind of caller. Each state gets its share of the budget."""
    states = [state for state in STATES if not filter.states or state in filter.states]
    found: dict[_Key, _Group] = {}
    scanned, truncated = 0, False
    for state in states:
        ask = Ask(replace(filter, states=(state,)), limit=AT_ONCE, budget=max(1, budget // len(states)))
        while True:
            page: Page = yield from look_through(queues, ask)
            for seen in page.items:
                _add(found, seen)
            scanned += page.scanned
            left = ask.budget - page.scanned
            if page.next is None or page.truncated or left <= 0:
                truncated |= page.next is not None
                break
            ask = replace(ask, cursor=page.next, budget=left)
    base = replace(filter, states=tuple(states))
    groups = [_told(base, key, each) for key, each in found.items()]
    return Failures(sorted(groups, key=lambda each: (-each.count, each.type, each.exception)), scanned, truncated)


def _add(found: dict[_Key, _Group], seen: TaskView) -> None:
    failure = last_failure(seen)
    if failure is None:
        return
    key = (seen.envelope.type if seen.envelope else "", failure.type, place_of(failure))
    moment = seen.attempts[-1].ended_ms
    group = found.setdefault(key, _Group(seen, moment, moment))
    if moment > group.last_ms:
        group.sample, group.last_ms = seen, moment
    group.first_ms = min(group.first_ms, moment)
    group.count += 1


def _told(filter: Filter, key: _Key, group: _Group) -> FailureGroup:
    type_, exception, place = key
    finds = replace(
        filter,
        types=(type_,) if type_ else filter.types,
        exceptions=(exception,) if exception else filter.exceptions,
        places=(place,),
    )
    first, last = group.first_ms or None, group.last_ms or None
    return FailureGroup(type_, exception, place, group.count, first, last, group.sample, finds.text())
