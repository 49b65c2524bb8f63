"""Clients that submit over HTTP without end, each submission under a key of its own, repeated until it is answered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import aiohttp

TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 0.2
TYPES: Final = ("coroutine", "coroutine", "coroutine", "thread", "process")


def body_of(dice: Random) -> dict[str, Any]:
    """A submission: mostly short tasks, some long ones, some that fail at first, some that are due later."""
    ms = dice.choice((0, 1, 5, 20, 100, 1_000))
    payload = {"ms": ms, "failures": dice.choice((0, 0, 0, 0, 0, 0, 1, 2))}
    body: dict[str, Any] = {"type": dice.choice(TYPES), "priority": dice.randrange(4), "payload": payload}
    if dice.random() < 0.1:
        body["delay"] = dice.choice((0.5, 3))
    return body


@dataclass
class Heard:
    """What the clients heard."""

    acked: dict[str, float] = field(default_factory=dict)
    """Id → seconds until the answer came, repetitions among them."""
    repeated: int = 0
    """Requests that were sent again."""
    refused: list[str] = field(default_factory=list)
    """Answers that no repetition mends; the first few."""
    open: int = 0
    """Submissions that were begun and are not answered."""


class Load:
    """Submits `rate` tasks a second in turn to each of `urls`, until it is cancelled or told to stop."""

    def __init__(self, urls: Sequence[str], seed: int, rate: float) -> None:
        self.heard = Heard()
        self._urls = urls
        self._seed = seed
        self._rate = rate
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Begin nothing more; `run` returns when all that was begun is answered."""
        self._stopped.set()

    async def run(self) -> None:
        dice = Random(f"load {self._seed}")
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            next_at = loop.time()
            for number in itertools.count():
                if self._stopped.is_set():
                    return
                group.create_task(self._submit(session, number, body_of(dice)))
                next_at += 1 / self._rate
                await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def _submit(self, session: aiohttp.ClientSession, number: int, body: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": f"soak-{self._seed}-{number}"}
        loop, self.heard.open = asyncio.get_running_loop(), self.heard.open + 1
        began = loop.time()
        for attempt in itertools.count():
            url = self._urls[(number + attempt) % len(self._urls)]
            try:
                async with session.post(f"{url}/api/v1/tasks", json=body, headers=headers) as answer:
                    said = await answer.json()
                    if answer.status == 201:
                        self.heard.acked[said["task_id"]] = loop.time() - began
                        break
                    if answer.status not in (429, 503):
                        self.heard.refused.append(f"{answer.status}: {said}")
                        break
            except (aiohttp.ClientError, TimeoutError):
                pass
            self.heard.repeated += 1
            await asyncio.sleep(AGAIN_S)
        self.heard.open -= 1
