"""Carrying out a replay: rows go out at their own times, workers are killed in between, and at the end all is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final

from headrace.errors import HeadraceError

from .replay_client import Accepted, ApiUnreachableError, Client, RefusedError, Seen
from .replay_trace import Row

STALL_S: Final = 30.0
"""The replay gives up on what is left when nothing more ended for so long."""
_POLL_S: Final = 0.5
_HEAD_START_S: Final = 0.2
_MAX_BATCH: Final = 100
_ENDED: Final = ("completed", "failed", "cancelled")


@dataclass
class State:
    """How far a replay is; read by the progress bar."""

    total: int
    accepted: list[Accepted] = field(default_factory=list)
    refused: int = 0
    completed: int = 0
    kills: int = 0
    due: Mapping[int, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """Why rows were refused; the first few."""


@dataclass(frozen=True)
class Kills:
    """How often, and how."""

    number: int
    kill: Callable[[], bool]
    """Kills one worker; False if none runs."""
    rng: Random


class Run:
    """One replay."""

    def __init__(self, client: Client, rows: Sequence[Row], speed: float, kills: Kills | None = None) -> None:
        self.state = State(len(rows))
        self._client = client
        self._rows = rows
        self._speed = speed
        self._kills = kills
        self._before: Mapping[str, int] = {}

    async def send(self) -> None:
        """Send all rows. Raises ApiUnreachableError if nothing answers from the beginning."""
        self._before = await self._client.stats()
        start = time.time() + _HEAD_START_S
        self.state.due = {row.number: start + row.at_s / self._speed for row in self._rows}
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(self._watch())]
            if self._kills is not None:
                group.create_task(self._kill(self._kills, start))
            async with asyncio.TaskGroup() as sending:
                async for rows in self._when_due():
                    sending.create_task(self._submit(rows))
            for task in watching:
                task.cancel()

    async def _when_due(self) -> AsyncIterator[Sequence[Row]]:
        """The rows at their times. Those that are due together go together, as one batch."""
        due, at = self.state.due, 0
        while at < len(self._rows):
            await asyncio.sleep(max(0.0, due[self._rows[at].number] - time.time()))
            now, end = time.time(), at + 1
            while end < min(len(self._rows), at + _MAX_BATCH) and due[self._rows[end].number] <= now:
                end += 1
            yield self._rows[at:end]
            at = end

    async def _submit(self, rows: Sequence[Row]) -> None:
        try:
            self.state.accepted += await self._client.submit(rows)
        except (RefusedError, ApiUnreachableError) as error:
            self.state.refused += len(rows)
            self.state.errors.append(str(error))

    async def _kill(self, kills: Kills, start: float) -> None:
        duration = self._rows[-1].at_s / self._speed
        for moment in kill_times(kills.number, duration, kills.rng):
            await asyncio.sleep(max(0.0, start + moment - time.time()))
            while not kills.kill():  # noqa: ASYNC110 - whether one runs again is only seen by looking
                await asyncio.sleep(0.05)
            self.state.kills += 1

    async def _watch(self) -> None:
        while True:
            await self._count()
            await asyncio.sleep(_POLL_S)

    async def _count(self) -> int:
        """How many tasks have ended since the start."""
        with suppress(RefusedError, ApiUnreachableError):
            now = await self._client.stats()
            gone = {name: now[name] - self._before[name] for name in _ENDED if name in now}
            self.state.completed = gone["completed"]
            return sum(gone.values())
        return 0

    async def drain(self) -> None:
        """Wait until all that was accepted has ended, or nothing more ends for STALL_S."""
        ended, since = -1, time.monotonic()
        while (now := await self._count()) < len(self.state.accepted):
            if now != ended:
                ended, since = now, time.monotonic()
            if time.monotonic() - since > STALL_S:
                return
            await asyncio.sleep(_POLL_S)

    async def look(self) -> dict[str, Seen]:
        """Every accepted task, as the API shows it."""
        ids = {each.task_id for each in self.state.accepted}
        found = await asyncio.gather(*(self._look_at(task_id) for task_id in ids))
        return {seen.task_id: seen for seen in found if seen is not None}

    async def _look_at(self, task_id: str) -> Seen | None:
        async def ask() -> Seen | None:
            try:
                return _seen(await self._client.get(f"/api/v1/tasks/{task_id}"))
            except RefusedError as error:
                if error.status == 404:
                    return None
                raise

        return await _patiently(ask)


async def _patiently(ask: Callable[[], Awaitable[Seen | None]]) -> Seen | None:
    give_up = time.monotonic() + STALL_S
    while True:
        try:
            return await ask()
        except HeadraceError:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(_POLL_S)


def _seen(facts: Mapping[str, Any]) -> Seen:
    created = facts.get("created_at")
    return Seen(
        facts["id"],
        facts["status"],
        datetime.fromisoformat(created).timestamp() if created else None,
        facts.get("crashes", 0),
        facts.get("interruptions", 0),
        facts,
    )


def kill_times(number: int, duration_s: float, rng: Random) -> list[float]:
    """Seconds after the start: one at random in each of `number` equal parts, so that they are spread."""
    part = duration_s / number if number else 0.0
    return [part * (at + rng.random()) for at in range(number)]
