"""What a test has submitted, and how an assertion about it reads when it does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.broker.broker import TaskView
from headrace.decorator import Task
from headrace.errors import InvalidPayload, nearest
from headrace.task import Priority

SHOWN = 10
"""Tasks that a failed assertion lists."""


@dataclass(frozen=True)
class Enqueued:
    """A task that the test submitted, as it was then."""

    id: str
    type: str
    arguments: Mapping[str, Any]
    """Those of the call, as JSON has them; a default is not among them."""
    namespace: str
    queue: str
    priority: Priority
    delay_s: float
    """Seconds after its submission before it may run; 0: at once."""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, seen: TaskView, namespace: str, now_ms: int) -> Enqueued:
        """A task that was submitted at that time."""
        envelope = seen.envelope
        assert envelope is not None
        delay_s = 0.0 if seen.due_ms is None else (seen.due_ms - now_ms) / 1000
        return cls(
            id=seen.id,
            type=envelope.type,
            arguments=msgspec.json.decode(envelope.payload),
            namespace=namespace,
            queue=seen.queue,
            priority=Priority(envelope.priority),
            delay_s=delay_s,
            tags=envelope.tags,
        )

    def __str__(self) -> str:
        return f"{self.type}({_listed(self.arguments)})"


def find(enqueued: Sequence[Enqueued], task: Task[..., Any], wanted: Mapping[str, Any]) -> Enqueued | None:
    """The first one of this type whose arguments have these values. AssertionError for an unknown argument."""
    _check_names(task, wanted)
    return next((each for each in _of_type(enqueued, task) if not _differences(each, task, wanted)), None)


def not_found(enqueued: Sequence[Enqueued], task: Task[..., Any], wanted: Mapping[str, Any]) -> str:
    """What there is instead: that type's tasks, the most alike first, with what differs; else all."""
    name = task.definition.name
    same = [(each, _differences(each, task, wanted)) for each in _of_type(enqueued, task)]
    if not same:
        others = "".join(f"\n  {each}" for each in enqueued[:SHOWN]) + _rest(len(enqueued))
        there = f"These were:{others}" if enqueued else "Nothing was."
        return f"No task {name!r} was enqueued. {there}"
    same.sort(key=lambda pair: len(pair[1]))
    lines = [f"No task {name!r} was enqueued with {_listed(wanted)}. Of this type were:"]
    for each, differences in same[:SHOWN]:
        lines += [f"  {each}", *(f"      {difference}" for difference in differences)]
    return "\n".join(lines) + _rest(len(same))


def _of_type(enqueued: Sequence[Enqueued], task: Task[..., Any]) -> list[Enqueued]:
    namespace = task.app.connections.client().settings.namespace
    return [each for each in enqueued if (each.type, each.namespace) == (task.definition.name, namespace)]


def _rest(number: int) -> str:
    return f"\n  … and {number - SHOWN} more" if number > SHOWN else ""


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _check_names(task: Task[..., Any], wanted: Mapping[str, Any]) -> None:
    known = task.definition.params.__struct_fields__
    for name in wanted:
        if name not in known:
            close = nearest(name, known)
            meant = f" (did you mean {close!r}?)" if close else f"; it takes {', '.join(known) or 'none'}"
            raise AssertionError(f"Task {task.definition.name!r} has no argument {name!r}{meant}.")


def _differences(each: Enqueued, task: Task[..., Any], wanted: Mapping[str, Any]) -> list[str]:
    """What of the wanted values is otherwise there: one line an argument. Defaults count as given."""
    try:
        sent = task.definition.decode(msgspec.json.encode(each.arguments))
    except InvalidPayload as error:  # another App has a type of this name
        return [str(error)]
    return [
        f"{name}: {getattr(sent, name)!r}, not {value!r}"
        for name, value in wanted.items()
        if not _same(getattr(sent, name), value)
    ]


def _same(sent: Any, wanted: Any) -> bool:
    """Equal as the handler gets it, or as JSON has it. (A matcher such as `mock.ANY` says what it is equal to.)"""
    return bool(wanted == sent) or bool(wanted == msgspec.to_builtins(sent))
