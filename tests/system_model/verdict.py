"""Whether a run kept every promise: the fault kit's checker, and what must be so where nothing is at work any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise

from chaos.checker import End, Facts, Verdict, check
from chaos.look import FIXED, end_of
from headrace.broker.broker import Queue, view
from headrace.broker.keys import STREAMS
from headrace.task import ARROWS, State
from model_dump import Dump, complaints, look

from .app import AGAIN
from .jobs import judge_jobs
from .nemesis import Profile
from .system import System
from .timed_scripts import EXPIRY

MAX_CRASHES = 3
DAY_S = 86_400.0
"""Records that stay for so long outlast every run."""
SLACK_S = 5.0
"""Between what Redis carried out and what a client heard of it."""


def judge(system: System, profile: Profile, lost: Iterable[tuple[float, float]]) -> Verdict:
    """Raises AssertionError if a promise was broken."""
    dumps = {queue: look(system.tap, queue) for queue in system.queues}
    seen = dict(system.observer.expired)
    for queue, dump in dumps.items():
        seen |= _ends(system, queue, dump)
    facts = Facts(
        acked=[task_id for task_id, times in system.heard.acked.items() if not _excused(profile, times, lost)],
        # What was run in moments that Redis lost may be known to nobody.
        unsure={note.task_id for note in system.ledger.begun} if profile.forgetful else (),
        seen=seen,
        ledger=system.ledger,
        completions=sum(map(_counted, dumps.values())),
        forgetful=profile.forgetful or bool(list(lost)),
    )
    verdict = check(facts)
    wrong = [*verdict.wrong, *system.heard.refused]
    for dump in dumps.values():
        wrong += [*complaints(dump), *_left(dump), *_ends_twice(dump)]
    for task_id, end in seen.items():
        wrong += [f"task {task_id} {each}" for each in _miscounted(end)]
    if profile.is_graceful:
        wrong += [f"task {task_id} was disturbed: {end}" for task_id, end in seen.items() if end.crashes]
    if not facts.forgetful:
        expired = system.observer.expired.keys()
        wrong += [f"task {each} was seen as {states}" for each, states in _impossible(system.heard.states, expired)]
    wrong += judge_jobs(system.tap, system.heard, seen)
    if profile.retention_s < DAY_S:
        wrong += _outlived(dumps.values())
    if len(seen) != len(system.heard.acked) and not profile.forgetful:
        wrong.append(f"{len(system.heard.acked)} submissions made {len(seen)} tasks")
    assert not wrong, "\n".join(wrong[:10])
    return verdict


def _excused(profile: Profile, times: list[float], lost: Iterable[tuple[float, float]]) -> bool:
    """Whether all that a client heard of it may be of moments that Redis was allowed to lose."""
    gone = [*lost] if profile.forgetful else []
    return all(any(since <= at <= until + SLACK_S for since, until in gone) for at in times)


def _ends(system: System, queue: Queue, dump: Dump) -> dict[str, End]:
    ids = sorted({*dump.records, *dump.hashes["loc"]})
    found = system.tap.run(queue.find(ids)) if ids else []
    return {each: end_of(view(each, queue.name, one)) for each, one in zip(ids, found, strict=True) if one}


def _counted(dump: Dump) -> int:
    return sum(int(count) for name, count in dump.hashes["stats"].items() if name.startswith("completed:"))


def _miscounted(end: End) -> Iterator[str]:
    charged = end.failures + end.crashes + end.interruptions
    free = {State.COMPLETED: {1}, State.CANCELLED: {0, 1}}.get(end.state, {0})
    if end.attempts - charged not in free:
        yield f"has {end.attempts} attempts, and {charged} of them did not complete: {end}"
    if end.crashes > MAX_CRASHES or end.failures > AGAIN.max + 1:
        yield f"was tried too often: {end}"
    if end.state is State.FAILED and end.crashes < MAX_CRASHES and end.failures <= AGAIN.max:
        yield f"failed too soon: {end}"


def _left(dump: Dump) -> Iterator[str]:
    """Where nothing runs and nothing waits, nothing lies but records."""
    for digit in STREAMS:
        if dump.streams[digit].entries:
            yield f"stream {digit} is not empty"
        if dump.streams[digit].consumers:
            yield f"stream {digit} has consumers: {dump.streams[digit].consumers}"
    for name in ("loc", "body", "u", "rev", "w", "wd"):
        if dump.hashes[name]:
            yield f"{name} is not empty: {dump.hashes[name]}"


def _outlived(dumps: Iterable[Dump]) -> Iterator[str]:
    """When all has ended and enough time has passed, only dead letters and what a queue always has is left."""
    for dump in dumps:
        yield from (f"the record of {each} has outlived its time" for each in dump.records.keys() - dump.dead.keys())
        more = {key for key in dump.others if key.rpartition(":")[2] not in {*FIXED, EXPIRY} and ":t:" not in key}
        yield from (f"{key} is left" for key in more)


def _impossible(seen: Mapping[str, list[str]], expired: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Tasks that were in a state, and later in one that cannot be reached from there."""
    for task_id, told in seen.items():
        states = [state for state in told if state != "404"] if task_id in expired else told
        if "404" in states or any(State(to) not in _reachable(State(of)) for of, to in pairwise(states)):
            yield task_id, states


@cache
def _reachable(state: State) -> frozenset[State]:
    """What a task may be seen as some time after this."""
    found = {state}
    while more := {after for each in found for after in ARROWS[each]} - found:
        found |= more
    return frozenset(found)


def _ends_twice(dump: Dump) -> Iterator[str]:
    ended = Counter(line.split(" ")[0] for _, text in dump.journal for line in text.decode().split("\n"))
    for task_id, times in ended.items():
        if times > 1:
            yield f"task {task_id} ended {times} times"
