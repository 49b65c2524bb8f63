"""Compares what clients were told, what handlers noted, and what Redis says in the end. Pure: facts in, verdict out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from headrace.task import TERMINAL, State

from .ledger import Ledger, Note, Token


class End(NamedTuple):
    """A task at the end of a run."""

    state: State
    attempts: int
    failures: int
    crashes: int
    interruptions: int
    completions: int
    """Lines of its history that say `completed`."""
    result: Token | None
    """What its handler returned: its own token; None if it did not complete."""

    @property
    def excused(self) -> int:
        """Runs beyond the first that its record explains."""
        return self.failures + self.crashes + self.interruptions


@dataclass(frozen=True)
class Facts:
    """All that is known when a run is over."""

    acked: Collection[str]
    """Ids that a client was told are accepted."""
    unsure: Collection[str]
    """Ids that a client tried, and never heard of: they may exist or not."""
    seen: Mapping[str, End]
    """Id → the task in the end; one that Redis does not know is missing."""
    ledger: Ledger
    completions: int
    """Accepted completions, as Redis counted them."""
    forgetful: bool = False
    """Whether Redis lost some of its last moments: then a task may run again without a record of why."""


@dataclass
class Verdict:
    """One sentence each; all but `recovered` and `reruns` must be empty."""

    lost: list[str] = field(default_factory=list)
    """Accepted, and without a terminal record."""
    duplicated: list[str] = field(default_factory=list)
    """Run more often than the record explains, or twice under one token."""
    second_completions: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    """Completed by an attempt that was not the last one."""
    unexpected: list[str] = field(default_factory=list)
    """Run, and nobody submitted it; or completed by nobody who ran it."""
    recovered: int = 0
    """Tasks that exist although the client never heard so. Legal."""
    reruns: int = 0
    """Runs beyond the first of each task."""

    @property
    def wrong(self) -> list[str]:
        kinds = ("lost", "duplicated", "second_completions", "stale", "unexpected")
        return [f"{kind}: {sentence}" for kind in kinds for sentence in getattr(self, kind)]


COMPLETED: Final = State.COMPLETED


def check(facts: Facts) -> Verdict:
    """What went wrong."""
    verdict = Verdict()
    runs: dict[str, list[Note]] = defaultdict(list)
    for note in facts.ledger.begun:
        runs[note.task_id].append(note)
    ended = {(note.task_id, note.token) for note in facts.ledger.ended}
    verdict.lost = [_words(facts, task_id) for task_id in facts.acked if not _is_terminal(facts, task_id)]
    for task_id, of_task in runs.items():
        _judge_runs(facts, verdict, task_id, of_task)
    for task_id, final in facts.seen.items():
        _judge_end(verdict, task_id, final, ended)
    done = sum(final.state is COMPLETED for final in facts.seen.values())
    if facts.completions > done and not facts.forgetful:
        verdict.second_completions.append(f"Redis counted {facts.completions} accepted completions of {done} tasks")
    verdict.recovered = sum(task_id in facts.seen for task_id in facts.unsure)
    verdict.reruns = sum(len(of_task) - 1 for of_task in runs.values())
    return verdict


def _is_terminal(facts: Facts, task_id: str) -> bool:
    final = facts.seen.get(task_id)
    return final is not None and final.state in TERMINAL


def _words(facts: Facts, task_id: str) -> str:
    final = facts.seen.get(task_id)
    return f"task {task_id} was accepted and is {final.state if final else 'unknown to Redis'}"


def _judge_runs(facts: Facts, verdict: Verdict, task_id: str, runs: list[Note]) -> None:
    if task_id not in facts.seen and task_id not in facts.acked and task_id not in facts.unsure:
        verdict.unexpected.append(f"task {task_id} was run, and nobody submitted it")
        return
    tokens = [note.token for note in runs]
    if len(set(tokens)) < len(tokens):
        verdict.duplicated.append(f"task {task_id} was run twice under one token: {sorted(tokens)}")
        return
    final = facts.seen.get(task_id)
    if final is None or facts.forgetful:
        return
    if len(runs) > 1 + final.excused:
        verdict.duplicated.append(f"task {task_id} was run {len(runs)} times; its record explains {1 + final.excused}")


def _judge_end(verdict: Verdict, task_id: str, final: End, ended: Collection[tuple[str, Token]]) -> None:
    if final.completions > 1:
        verdict.second_completions.append(f"task {task_id} has {final.completions} completions in its history")
    if final.result is None:
        return
    if (task_id, final.result) not in ended:
        verdict.unexpected.append(f"task {task_id} has the result of {final.result}, a run that nobody finished")
    elif final.result[1] != final.attempts:
        verdict.stale.append(f"task {task_id} has the result of attempt {final.result[1]} of {final.attempts}")
