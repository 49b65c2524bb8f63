"""Adding up a replay: what was lost, what was doubled, how long tasks waited. Pure: facts in, numbers out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from .replay_client import Accepted, Seen
from .replay_ledger import Ledger, Run


@dataclass(frozen=True)
class Facts:
    """All that is known when a replay is over."""

    accepted: Sequence[Accepted]
    refused: int
    """Rows that the API did not take."""
    seen: Mapping[str, Seen]
    """Task id → the task as the API shows it at the end; one that it does not know is missing."""
    ledger: Ledger | None
    """None where the handlers' notes cannot be read."""
    completions: int | None
    """Accepted completions that Redis counted since the start; None where other tasks would be among them."""
    due: Mapping[int, float]
    """Row → Unix time at which it was to come."""


@dataclass(frozen=True)
class Waits:
    """Percentiles in seconds; None if nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Waits:
        """By nearest rank."""
        ordered = sorted(seconds)

        def rank(share: float) -> float | None:
            return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None

        return cls(rank(0.5), rank(0.95), rank(0.99))


@dataclass(frozen=True)
class Tally:
    """The result of a replay."""

    submitted: int
    completed: int
    lost: tuple[str, ...]
    """One sentence a task that was accepted and is not completed."""
    duplicated: tuple[str, ...]
    """One sentence a completion, task or run too many."""
    reruns: int | None
    """Runs beyond the first of each task, all explained by a fault on its record; None without a ledger."""
    waits_accepted: Waits
    """From the acceptance by the API to the handler's first line."""
    waits_due: Waits
    """From the row's own time."""


def add_up(facts: Facts) -> Tally:
    """The numbers of a replay."""
    done = [each for each in facts.accepted if _status(facts, each) == "completed"]
    starts = _first_starts(facts.ledger)
    return Tally(
        submitted=len(facts.accepted),
        completed=len(done),
        lost=tuple(_lost(facts)),
        duplicated=tuple(_duplicated(facts, len(done))),
        reruns=None if facts.ledger is None else _reruns(facts.ledger),
        waits_accepted=Waits.of([starts[a.task_id] - _acceptance(facts, a) for a in done if a.task_id in starts]),
        waits_due=Waits.of([starts[a.task_id] - facts.due[a.row.number] for a in done if a.task_id in starts]),
    )


def _status(facts: Facts, accepted: Accepted) -> str:
    seen = facts.seen.get(accepted.task_id)
    return seen.status if seen is not None else "unknown to the API"


def _acceptance(facts: Facts, accepted: Accepted) -> float:
    created = facts.seen[accepted.task_id].created
    return accepted.accepted if created is None else created


def _lost(facts: Facts) -> list[str]:
    lost = []
    for each in facts.accepted:
        status = _status(facts, each)
        if status != "completed":
            lost.append(f"row {each.row.number} (task {each.task_id}) was accepted and is {status}")
    rows = Counter(each.task_id for each in facts.accepted)
    lost += [f"{number} rows share the task {task_id}" for task_id, number in rows.items() if number > 1]
    return lost


def _duplicated(facts: Facts, completed: int) -> list[str]:
    doubled = []
    if facts.completions is not None and facts.completions > completed:
        doubled.append(f"Redis counted {facts.completions} accepted completions of {completed} tasks")
    if facts.ledger is None:
        return doubled
    ours = {each.task_id for each in facts.accepted}
    strangers = {run.task_id for run in facts.ledger.begun} - ours
    doubled += [
        f"task {task_id} was run and belongs to no row: a row was stored twice" for task_id in sorted(strangers)
    ]
    return doubled + _unexplained_runs(facts, facts.ledger)


def _unexplained_runs(facts: Facts, ledger: Ledger) -> list[str]:
    """A task may be run again only after a fault that its record tells of; and never twice as the same attempt."""
    doubled = []
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in ledger.begun:
        runs[run.task_id].append(run)
    for task_id, of_task in runs.items():
        seen = facts.seen.get(task_id)
        excused = seen.crashes + seen.interruptions if seen else 0
        if len({run.attempt for run in of_task}) < len(of_task):
            doubled.append(f"task {task_id} was run twice as the same attempt")
        elif len(of_task) > 1 + excused:
            doubled.append(f"task {task_id} was run {len(of_task)} times, its record explains {1 + excused}")
    return doubled


def _reruns(ledger: Ledger) -> int:
    return len(ledger.begun) - len({run.task_id for run in ledger.begun})


def _first_starts(ledger: Ledger | None) -> dict[str, float]:
    starts: dict[str, float] = {}
    for run in ledger.begun if ledger else ():
        starts[run.task_id] = min(run.start, starts.get(run.task_id, run.start))
    return starts
