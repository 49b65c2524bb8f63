"""The body of a batch, read: all of it at once if it is in order, else task by task to say what is wrong with which."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec

from headrace.errors import FieldError, InvalidTask, TooLarge
from headrace.settings import KIB

from . import strict_json
from .batch_partial import Told
from .shapes import explain_shape
from .strict_json import MalformedJson
from .submissions import Accepted, Desk, Origin, Submission

MAX_ERRORS: Final = 20
BREATH: Final = 20
"""Tasks after which other requests get their turn."""
SMALL: Final = 64 * KIB
"""Bytes of a batch that is decoded at once: the others wait no longer for it than for one large payload."""
SLIM: Final = strict_json.MAX_NODES // 2
"""Bytes of a payload in which there cannot be too many values; of the tags, too many are refused as such."""


class _Peek(msgspec.Struct):
    type: str


class _Peeked(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses a million numbers at the first one, where a list of raw parts would fill memory."""

    tasks: list[_Peek]


class _Batch(msgspec.Struct):
    tasks: list[msgspec.Raw]


class _Bodies(msgspec.Struct, forbid_unknown_fields=True):
    tasks: list[Submission]


_peek: Final = msgspec.json.Decoder(_Peeked).decode
_split: Final = msgspec.json.Decoder(_Batch).decode
_read: Final = msgspec.json.Decoder(_Bodies).decode


class BatchReader:
    """Of one request: up to `limit` tasks, which come from `origin`."""

    def __init__(self, desk: Desk, origin: Origin, limit: int) -> None:
        self._desk = desk
        self._origin = origin
        self._limit = limit

    async def read_all(self, text: bytes, *, by_line: bool) -> list[Accepted]:
        """Every task. Raises MalformedJson, InvalidTask, TooLarge if one of them is not in order."""
        quickly = not by_line  # only together with its neighbours might a line look like JSON
        if quickly and len(text) <= SMALL:
            if (read := await self._read_together(text)) is not None:
                return read
            quickly = False
        batch, errors = list[Accepted](), list[FieldError]()
        for start, some in self._parts(text, by_line):
            together = await self._read_together(b'{"tasks":[%b]}' % b",".join(some), start) if quickly else None
            batch += await self._read_one_by_one(some, start, errors) if together is None else together
            if len(errors) >= MAX_ERRORS:
                break
            await asyncio.sleep(0)
        if errors:
            raise InvalidTask("", errors[:MAX_ERRORS])
        return batch

    async def read_each(self, text: bytes, *, by_line: bool) -> list[Told]:
        """Each task, or what is wrong with it. Raises what `split` does."""
        told: list[Told] = []
        for start, some in self._parts(text, by_line):
            for index, part in enumerate(some, start):
                try:
                    told.append(await self._desk.read(part, self._own(index)))
                except (MalformedJson, InvalidTask) as error:
                    told.append(error)
            await asyncio.sleep(0)
        return told

    def _parts(self, text: bytes, by_line: bool) -> list[tuple[int, Sequence[msgspec.Raw]]]:
        """The tasks unread, some at a time, with the number of the first of them."""
        parts = split_lines(text, self._limit) if by_line else split(text, self._limit)
        return [(start, parts[start : start + BREATH]) for start in range(0, len(parts), BREATH)]

    async def _read_together(self, text: bytes, start: int = 0) -> list[Accepted] | None:
        """All tasks of a batch, the first of which has this number; None if something is wrong, whatever it is."""
        try:
            bodies = _read(text).tasks
            if len(bodies) > self._limit:
                return None
            if len(text) > self._desk.max_payload:
                for body in bodies:  # before its payload fills memory
                    self._desk.weigh(body)
            return await self._judge(bodies, documents_of(text, bodies), start) or None
        except (*strict_json.FAILURES, MalformedJson, InvalidTask):
            return None

    async def _judge(self, bodies: list[Submission], documents: list[Any], start: int) -> list[Accepted]:
        batch: list[Accepted] = []
        for index, (body, document) in enumerate(zip(bodies, documents, strict=True), start):
            own = self._own(index)
            # Nearly always its type is known, and then there is nothing to wait for.
            accepted = self._desk.judge_known(body, document, own) or await self._desk.judge(body, document, own)
            batch.append(accepted)
            if len(batch) % BREATH == 0:
                await asyncio.sleep(0)
        return batch

    async def _read_one_by_one(
        self, parts: Sequence[msgspec.Raw], start: int, errors: list[FieldError]
    ) -> list[Accepted]:
        """To say which task is wrong: its errors are added to `errors`. Raises MalformedJson."""
        accepted: list[Accepted] = []
        for index, part in enumerate(parts, start):
            try:
                accepted.append(await self._desk.read(part, self._own(index)))
            except MalformedJson as error:
                raise MalformedJson(_at(index, error.errors)[0]) from None
            except InvalidTask as error:
                errors += _at(index, error.errors)
        return accepted

    def _own(self, index: int) -> Origin:
        """Under an Idempotency-Key each task has an id of its own."""
        origin = self._origin
        return replace(origin, task_id=partial(origin.task_id, index=index)) if origin.fingerprint else origin


def documents_of(text: bytes, bodies: list[Submission]) -> list[Any]:
    """The document of each task. Raises MalformedJson, which does not say of which."""
    document, is_shallow = strict_json.decode(text)
    documents: list[Any] = document["tasks"]
    if not is_shallow or max([len(body.payload) for body in bodies], default=0) > SLIM:
        for each in documents:
            strict_json.measure(each)
    return documents


def split(text: bytes, limit: int) -> list[msgspec.Raw]:
    """The tasks of a batch, unread. Raises MalformedJson, InvalidTask, TooLarge."""
    try:
        count = len(_peek(text).tasks)
        if count > limit:
            raise TooLarge("batch", count, limit, "tasks")
        parts = _split(text).tasks
    except msgspec.ValidationError as error:
        raise InvalidTask("", [explain_shape(str(error), ["tasks"])]) from None
    except strict_json.FAILURES as error:
        raise MalformedJson(strict_json.explain(text, error)) from None
    if not parts:
        raise InvalidTask("", [FieldError("/tasks", "is empty", f"send 1 to {limit} tasks")])
    # All quotes are the tasks' but those of the one key; another `tasks` before it was dropped unseen.
    if text.count(b'"') != 2 + b"".join(parts).count(b'"'):
        raise MalformedJson(FieldError("/tasks", "the key occurs twice in one object", "send each key once"))
    return parts


def split_lines(text: bytes, limit: int) -> list[msgspec.Raw]:
    """The tasks of a batch that has one on each line, unread; empty lines are none. Raises InvalidTask, TooLarge."""
    parts = [msgspec.Raw(line) for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(parts) > limit:
        raise TooLarge("batch", len(parts), limit, "tasks")
    if not parts:
        raise InvalidTask("", [FieldError("", "is empty", f"send 1 to {limit} tasks, one on each line")])
    return parts


def _at(index: int, errors: Sequence[FieldError]) -> list[FieldError]:
    return [FieldError(f"/tasks/{index}{each.pointer}", each.detail, each.hint) for each in errors]
