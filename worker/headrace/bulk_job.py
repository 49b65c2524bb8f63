"""A job on many tasks, as records: what was ordered, how far it is, what one sees of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from headrace.filters import Filter
from headrace.queues import at

Action = Literal["retry", "replay", "cancel", "delete"]
MAX_EXAMPLES: Final = 5


@dataclass(frozen=True)
class Order:
    """What shall be done, and with which tasks: all that fit `filter` in `queues`, or those with these `ids`."""

    action: Action
    filter: Filter | None = None
    ids: tuple[str, ...] = ()
    queues: tuple[str, ...] | None = None
    """Where to look; None = in all queues of the namespace."""
    who: str = ""
    """For the audit log."""


@dataclass(frozen=True)
class Count:
    """How many tasks an order is about now."""

    found: int
    truncated: bool = False
    """There was no time to see them all: there may be more."""


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order as Redis keeps it."""

    action: Action
    queues: tuple[str, ...]
    who: str = ""
    filter: str = ""
    ids: tuple[str, ...] = ()


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """A task that the next step acts on."""

    id: str
    state: str
    place: str
    """Of its last attempt: what has failed again since is another failure."""


class Progress(msgspec.Struct, omit_defaults=True):
    """How far a job is."""

    found: int = 0
    done: int = 0
    failed: dict[str, int] = {}
    """Reason → tasks that were left as they are."""
    examples: dict[str, list[str]] = {}
    """Reason → ids of some of them."""
    cursor: str | None = None
    """Where the next page begins; None = at the beginning, or behind the end."""
    listed: bool = False
    """Whether the last page was taken."""

    def count(self, chosen: Sequence[Chosen], results: Sequence[str | None]) -> None:
        """Add what became of these tasks: None = it is done, else a reason."""
        self.found += len(chosen)
        for each, reason in zip(chosen, results, strict=True):
            if reason is None:
                self.done += 1
                continue
            self.failed[reason] = self.failed.get(reason, 0) + 1
            examples = self.examples.setdefault(reason, [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(each.id)


class BulkJob(msgspec.Struct, frozen=True):
    """A job as one sees it."""

    id: str
    action: Action
    filter: str | None
    ids: int | None
    """How many were named, where it has no filter."""
    queues: tuple[str, ...]
    state: Literal["running", "aborting", "done", "aborted"]
    found: int
    """Tasks that it came to so far; what was done and what failed together."""
    done: int
    failed: dict[str, int]
    """Reason → tasks that were left as they are: unknown_task, wrong_state, changed (failed again since), unique (its
    unique key is held by another), malformed."""
    examples: dict[str, list[str]]
    """Reason → ids of at most 5 of them."""
    who: str
    created_at: str
    ended_at: str | None


@dataclass(frozen=True)
class Work:
    """A job as the process that carries it out has it."""

    id: str
    kept: Kept
    begun_ms: int
    progress: Progress
    next: tuple[Chosen, ...] = ()
    """Which a process that is gone may have acted on already."""
    term: int = 0
    """How many owners it had before: while that is the same, all that became of it was done by one process."""


_kept: Final = msgspec.json.Decoder(Kept).decode
_progress: Final = msgspec.json.Decoder(Progress).decode
_chosen: Final = msgspec.json.Decoder(list[Chosen]).decode


def work_of(bulk_id: str, fields: Mapping[bytes, bytes]) -> Work:
    """A job in Redis, for the process that took it."""
    chosen = tuple(_chosen(fields[b"next"])) if b"next" in fields else ()
    kept, term = _kept(fields[b"order"]), int(fields.get(b"term", 0))
    return Work(bulk_id, kept, int(fields[b"begun"]), _progress_of(fields), chosen, term)


def _progress_of(fields: Mapping[bytes, bytes]) -> Progress:
    return _progress(fields[b"progress"]) if b"progress" in fields else Progress()


def job_of(bulk_id: str, fields: Mapping[bytes, bytes]) -> BulkJob:
    """A job in Redis, for whoever looks."""
    kept = _kept(fields[b"order"])
    progress = _progress_of(fields)
    state = fields.get(b"state", b"aborting" if b"abort" in fields else b"running").decode()
    return BulkJob(
        id=bulk_id,
        action=kept.action,
        filter=kept.filter or None,
        ids=len(kept.ids) or None,
        queues=kept.queues,
        state=state,  # type: ignore[arg-type] # the scripts write no others
        found=progress.found,
        done=progress.done,
        failed=progress.failed,
        examples=progress.examples,
        who=kept.who,
        created_at=at(int(fields[b"begun"])) or "",
        ended_at=at(int(fields[b"ended"])) if b"ended" in fields else None,
    )
