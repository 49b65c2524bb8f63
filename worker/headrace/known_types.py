"""The task types that workers know: what they published of each, in which versions, and how many know it.

A worker publishes when it starts. Its description of a type is a *version*; during a rollout there are two, and both
stay as long as a worker renews them. The newest speaks for the type: its queue, its priority, its schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from headrace.broker.broker import Queue, WorkerSeen
from headrace.broker.shared import shared_call
from headrace.client import Run, Steps
from headrace.errors import UnknownType, nearest
from headrace.task import Priority


class Described(msgspec.Struct, frozen=True):
    """What a worker published of a type. Empty for what something foreign, or a later headrace, wrote."""

    schema: dict[str, Any] = {}
    hash: str = ""
    doc: str = ""
    queue: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    timeout_s: float | None = None


class TypeView(msgspec.Struct, frozen=True):
    """A task type that workers know, or knew."""

    type: str
    queue: Annotated[str | None, Meta(description="Where its tasks go if a submission does not say.")]
    priority: Annotated[int | None, Meta(description="Of a submission that does not say.")]
    max_retries: Annotated[int | None, Meta(description="Of a submission that does not say.")]
    timeout_s: Annotated[float | None, Meta(description="Seconds after which an attempt is cancelled.")]
    doc: Annotated[str, Meta(description="What its function says of itself.")]
    schema: Annotated[dict[str, Any], Meta(description="JSON Schema (2020-12) of the payload.")]
    hash: Annotated[str, Meta(description="Of the schema.")]
    versions: Annotated[
        list[str],
        Meta(description="Hashes of the schemas that workers know, the newest first; two during a rollout."),
    ]
    workers: Annotated[int, Meta(description="Workers that live and know it; 0: its tasks wait for one.")]


_decode: Final = msgspec.json.Decoder(Described).decode


def described(text: bytes) -> Described | None:
    """A description that was published; None if it cannot be read."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return None


def grouped(reply: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Type → its descriptions, the newest first, of the fields and values that Redis answered."""
    newest = {name.decode("utf-8", "replace"): [text] for name, text in _pairs(reply) if b"#" not in name}
    for field, text in _pairs(reply):
        name, mark, _ = field.decode("utf-8", "replace").rpartition("#")
        if mark and name in newest:
            newest[name].append(text)
    return newest


def _pairs(reply: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return sorted(zip(reply[::2], reply[1::2], strict=True))


def look(
    namespace: str, queues: Sequence[Queue] | None = None, lives: Callable[[str], bool] = lambda worker: True
) -> Steps[list[TypeView]]:
    """The types of a namespace by name, with how many workers of these queues (None: of all) know each.

    `lives` says of a worker that beats whether it still does.
    """
    if queues is None:
        names: list[bytes] = yield Run(shared_call("queues", namespace, (), lambda reply: reply))
        queues = [Queue(name.decode(), namespace) for name in names]
    published = grouped((yield Run(shared_call("types", namespace, (), lambda reply: reply))))
    knowing = yield from _knowing(queues, lives)
    return [view(name, texts, knowing[name]) for name, texts in published.items()]


def view(name: str, texts: Sequence[bytes], workers: int) -> TypeView:
    """A type as it is shown, of its descriptions, the newest first."""
    read = [described(text) or Described() for text in texts]
    first = read[0]
    priority = first.priority if first.priority in set(Priority) else None
    return TypeView(
        type=name,
        queue=first.queue,
        priority=priority,
        max_retries=first.max_retries,
        timeout_s=first.timeout_s,
        doc=first.doc,
        schema=first.schema,
        hash=first.hash,
        versions=list(dict.fromkeys(each.hash for each in read)),
        workers=workers,
    )


def named(name: str, found: Sequence[TypeView]) -> TypeView:
    """The type of this name. Raises UnknownType, which names one that is close."""
    for each in found:
        if each.type == name:
            return each
    raise UnknownType(name[:128], nearest(name[:128], [each.type for each in found]))


class _Knows(msgspec.Struct, frozen=True):
    types: tuple[str, ...] = ()


def _knowing(queues: Sequence[Queue], lives: Callable[[str], bool]) -> Steps[Counter[str]]:
    """Type → workers that know it. A worker of several queues counts once."""
    knows: dict[str, tuple[str, ...]] = {}
    for queue in queues:
        found: list[WorkerSeen] = yield Run(queue.workers())
        for seen in found:
            if seen.beat and not seen.beat.startswith("?") and lives(seen.name):
                knows[seen.name] = _types(seen.info)
    return Counter(name for types in knows.values() for name in set(types))


def _types(info: bytes) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(info, type=_Knows).types
    except msgspec.DecodeError:
        return ()
