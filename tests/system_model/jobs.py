"""Whether bulk jobs did what they say, and no task was cancelled that nobody wanted to cancel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from chaos.checker import End
from headrace.broker.keys import NamespaceKeys
from headrace.bulk_job import BulkJob, job_of
from headrace.task import State
from model_redis import Wire

from .clients import Heard

_KEY = NamespaceKeys("default")["bulk"]


def judge_jobs(wire: Wire, heard: Heard, ends: Mapping[str, End]) -> list[str]:
    """What is wrong, one sentence each."""
    cancelled = defaultdict[str, set[str]](set)
    for task_id, end in ends.items():
        if end.state is State.CANCELLED:
            cancelled[heard.types.get(task_id, "")].add(task_id)
    jobs = list(_jobs(wire))
    said = [each for job in jobs for each in _about(job, cancelled[_type_of(job)])]
    for type_, tasks in cancelled.items():
        alone = tasks - heard.cancels
        if alone and type_ not in heard.types_cancelled:
            said += [f"task {each} was cancelled by nobody" for each in sorted(alone)]
        elif (counted := sum(job.done for job in jobs if _type_of(job) == type_)) < len(alone):
            said.append(f"bulk jobs counted {counted} of {len(alone)} tasks of type {type_} that they cancelled")
    return said


def are_over(wire: Wire) -> bool:
    """Whether no job is being carried out, or waits for somebody who does."""
    return all(job.ended_at for job in _jobs(wire))


def _jobs(wire: Wire) -> Iterator[BulkJob]:
    for name in wire.command("ZRANGE", _KEY, 0, -1):
        flat = wire.command("HGETALL", f"{_KEY}:{name.decode()}")
        yield job_of(name.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))


def _type_of(job: BulkJob) -> str:
    """The one that its filter names."""
    return next(word for word in (job.filter or "").split() if word.startswith("type:")).removeprefix("type:")


def _about(job: BulkJob, cancelled: set[str]) -> Iterator[str]:
    if job.state != "done":
        yield f"bulk job {job.id} is {job.state} when all is over"
    if job.found != job.done + sum(job.failed.values()):
        yield f"bulk job {job.id} found {job.found}, and tells of {job.done} and {job.failed}"
    if job.done > len(cancelled):
        yield f"bulk job {job.id} says that it cancelled {job.done} tasks; {len(cancelled)} are cancelled"
