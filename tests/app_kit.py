"""An App, and what plays the worker of its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace import (
    App,
    Handle,
    Task,
)
from headrace import task as tasks
from headrace.broker.broker import Queue, Report
from headrace.broker.sync_client import SyncClient


@dataclass
class Page:
    url: str
    words: int


@dataclass
class Deps:
    cdn: str


def make_app(url: str = "redis://127.0.0.1:1", **options: Any) -> App[None]:
    return App("test", url=url, **options)


def declare(app: App[Any]) -> Task[[str, int], Page]:
    @app.task()
    async def count(url: str, words: int = 2) -> Page:
        return Page(url, words)

    return count


def claim(broker: SyncClient, queue: Queue) -> tuple[bytes, bytes]:
    """Take the next task of the queue; its place and its envelope."""
    cycle = broker.call(queue.cycle("w1", 1))
    [(place, envelope, _)] = cycle.claims
    return place, envelope


def finish(broker: SyncClient, queue: Queue, outcome: str, **facts: Any) -> None:
    """Run the next task as a worker would, to this end."""
    place, envelope = claim(broker, queue)
    line = tasks.encode_attempt(tasks.Attempt(place.decode(), outcome, "w1", 1, 2, **facts))
    carried = tasks.extend(b"", tasks.Counters(1, int(outcome == "failed")), line)
    record = tasks.record(outcome, envelope, carried)
    task_id = tasks.decode_envelope(envelope).id
    broker.call(queue.cycle("w1", 0, [Report(place, task_id, outcome, "", "count", record)]))


def envelope_of(broker: SyncClient, handle: Handle[Any]) -> tasks.Envelope:
    queue = tasks.queue_of(handle.id)
    assert queue is not None
    found = broker.call(Queue(queue).get(handle.id))
    assert found is not None
    text = found.text if found.place[0] in "rs3210" else tasks.cut(found.text)[1]
    return tasks.decode_envelope(text)
