"""The errors of whoever manages queues and many tasks at once: a part of the tree in `headrace.errors`."""
# ruff: noqa: N818 - named for the outcome, as in headrace.errors

from __future__ import annotations

from collections.abc import Sequence

from headrace.error_base import FieldError, HeadraceError
from headrace.task import check_queue


class InvalidRequest(HeadraceError):
    """An order about queues or many tasks is refused; given again unchanged it would be refused again."""

    code = "invalid_request"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(tuple(errors))
        self.errors: list[FieldError] = list(errors)

    def __str__(self) -> str:
        return f"The request is refused: {'; '.join(map(str, self.errors))}."


class InvalidFilter(InvalidRequest):
    """A filter cannot be understood; `errors` has one entry a wrong condition, its pointer the condition's name."""

    code = "invalid_filter"

    def __str__(self) -> str:
        return f"The filter is refused: {'; '.join(map(str, self.errors))}."


class UnknownQueue(HeadraceError):
    """The namespace has no such queue, or none can be called so; `meant` is the name of one that is close."""

    code = "unknown_queue"

    def __init__(self, queue: str, meant: str | None = None) -> None:
        super().__init__(queue, meant)
        self.queue, self.meant = queue, meant

    def __str__(self) -> str:
        try:
            check_queue(self.queue)
        except ValueError as error:  # nothing will ever make it
            return str(error)
        hint = f"Did you mean {self.meant!r}?" if self.meant else "Its first task or worker makes it."
        return f"There is no queue {self.queue!r}. {hint}"


class UnknownType(HeadraceError):
    """No worker has published a type of this name; `meant` is one that is close."""

    code = "unknown_type"

    def __init__(self, name: str, meant: str | None = None) -> None:
        super().__init__(name, meant)
        self.name, self.meant = name, meant

    def __str__(self) -> str:
        hint = f"Did you mean {self.meant!r}?" if self.meant else "Start a worker that knows it."
        return f"No worker has published a type {self.name!r}. {hint}"


class UnknownBulk(HeadraceError):
    """No bulk job has this id: it never existed, or it ended so long ago that it was forgotten."""

    code = "unknown_bulk"

    def __init__(self, bulk_id: str) -> None:
        super().__init__(bulk_id)
        self.bulk_id = bulk_id

    def __str__(self) -> str:
        return f"No bulk job {self.bulk_id!r} is known. Jobs are kept for a day after their last step, at most 100."


class WrongCount(HeadraceError):
    """A bulk order fits `found` tasks (or more, if `truncated`) and not the `expected` ones; nothing was done."""

    code = "wrong_count"

    def __init__(self, expected: int, found: int, truncated: bool = False) -> None:
        super().__init__(expected, found, truncated)
        self.expected, self.found, self.truncated = expected, found, truncated

    def __str__(self) -> str:
        if self.truncated:
            return (
                f"{self.expected} tasks were expected, but there was no time to count them: {self.found} were found so "
                "far. Nothing was done; narrow the filter, or leave the expected count out."
            )
        return (
            f"{self.expected} tasks were expected, but {self.found} fit now. Nothing was done; "
            "look at what changed, and order it again with the new count."
        )


class TooManyBulks(HeadraceError):
    """`limit` bulk jobs run in this namespace already; nothing was begun."""

    code = "too_many_bulks"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} bulk jobs run already, which is the most. Wait until one has ended, or abort one."
