"""What the tests of lists share: pages of a desk's queue, and a queue with tasks in every state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.broker.broker import Queue, TaskView
from headrace.client import Run
from headrace.filters import Filter
from headrace.listing import Ask, Page, Position, look_through
from model_desk import Desk
from model_task import new, task_id


def page(desk: Desk, text: str = "", cursor: Position | None = None, *queues: Queue, **ask: Any) -> Page:
    """One page of the desk's queue, or of these queues."""
    return carried_out(desk, Ask(Filter.parse(text), cursor, **ask), *queues)


def chosen(desk: Desk, filter: Filter) -> list[TaskView]:
    """The tasks of the desk's queue that match, if they are few."""
    return carried_out(desk, Ask(filter)).items


def carried_out(desk: Desk, ask: Ask, *queues: Queue) -> Page:
    """The page that is asked for."""
    steps = look_through(queues or [desk.queue], ask)
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Run)
            step = steps.send(desk.wire.run(step.call))
    except StopIteration as done:
        found: Page = done.value
        return found


def pages(desk: Desk, text: str = "", **ask: Any) -> Iterator[Page]:
    """All pages, one after another; between two of them the test may do something else."""
    cursor = None
    while True:
        found = page(desk, text, cursor, **ask)
        yield found
        if found.next is None:
            return
        cursor = Position.parse(found.next.text())


def listed(desk: Desk, text: str = "", **ask: Any) -> list[TaskView]:
    """All tasks that match, in order."""
    return [seen for each in pages(desk, text, **ask) for seen in each.items]


def ids(desk: Desk, text: str = "", **ask: Any) -> list[str]:
    return [seen.id for seen in listed(desk, text, **ask)]


def states(desk: Desk, text: str = "", **ask: Any) -> dict[str, str]:
    """Id → state."""
    return {seen.id: str(seen.state) for seen in listed(desk, text, **ask)}


def in_every_state(desk: Desk) -> dict[str, str]:
    """A queue with tasks in every state. Id → state."""
    made = [task_id(n) for n in range(1, 10)]
    desk.submit(*(new(id_) for id_ in made[:6]))
    done, failed, retried, parked, _, waits = desk.claim(slots=6)
    desk.report(
        done.report("completed"), failed.report("failed", message="boom"), retried.report("retrying", 60_000),
        parked.report("parked", "noop"),
    )  # fmt: skip
    desk.hand_back("w", waits.place)
    desk.submit(new(made[6], delay_ms=60_000), new(made[7], 3), new(made[8]))
    desk.cancel(made[8])
    names = ["completed", "failed", "retrying", "parked", "processing", "pending", "scheduled", "pending", "cancelled"]
    return dict(zip(made, names, strict=True))
