"""The HTTP API as a replay uses it: submissions that may be repeated, and questions about what became of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from headrace.errors import HeadraceError, StoreUnavailable

from .replay_trace import Row

TYPE: Final = "llm_request"
PATIENCE_S: Final = 60.0
"""How long one submission is repeated before the replay gives up."""
AT_ONCE: Final = 128
"""Requests that may be out at the same time."""
_PAUSE_S: Final = (0.05, 1.0)


class ApiUnreachableError(StoreUnavailable):
    """Nothing answers at the API's address."""

    code = "api_unreachable"

    def __str__(self) -> str:
        return (
            f"The API cannot be reached at {self.where}: {self.cause}. Start it with `headrace dev` or `headrace api`."
        )


class RefusedError(HeadraceError):
    """The API refuses what the replay sends; `status` is HTTP's, `said` its own words."""

    code = "refused"

    def __init__(self, status: int, said: str) -> None:
        super().__init__(status, said)
        self.status, self.said = status, said

    def __str__(self) -> str:
        return f"The API answered {self.status}: {self.said}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A row that the API took."""

    row: Row
    task_id: str
    sent: float
    """Unix time of the first try."""
    accepted: float
    """Unix time at which the answer was here."""
    tries: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as the API shows it."""

    task_id: str
    status: str
    created: float | None
    """Unix time."""
    crashes: int
    interruptions: int
    facts: Mapping[str, Any]


class Client:
    """One session with one API. `run` makes the idempotency keys of one replay unlike those of another."""

    def __init__(self, url: str, run: str, speed: float, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._run = run
        self._speed = speed
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.retried = 0
        """Requests that were sent again because their answer was an error or never came."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=10, connect=5)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def submit(self, rows: Sequence[Row]) -> list[Accepted]:
        """Submit one row, or several as one batch. Raises RefusedError, ApiUnreachableError."""
        bodies = [self._body(row) for row in rows]
        key = f"{self._run}-{rows[0].number}" + (f"-{rows[-1].number}" if len(rows) > 1 else "")
        path, body = ("/api/v1/tasks", bodies[0]) if len(rows) == 1 else ("/api/v1/tasks:batch", {"tasks": bodies})
        sent = time.time()
        tries, answer = await self._post_until_answered(path, body, key)
        ids = [answer["task_id"]] if len(rows) == 1 else [each["task_id"] for each in answer["tasks"]]
        now = time.time()
        return [Accepted(row, task_id, sent, now, tries) for row, task_id in zip(rows, ids, strict=True)]

    def _body(self, row: Row) -> dict[str, Any]:
        payload = {"context_tokens": row.context_tokens, "generated_tokens": row.generated_tokens, "speed": self._speed}
        return {"type": TYPE, "payload": payload}

    async def _post_until_answered(self, path: str, body: Any, key: str) -> tuple[int, Any]:
        give_up = time.monotonic() + PATIENCE_S
        pause, tries = _PAUSE_S[0], 0
        problem: HeadraceError
        while True:
            tries += 1
            wait_s = pause
            try:
                async with (
                    self._gate,
                    self._session.post(f"{self.url}{path}", json=body, headers={"Idempotency-Key": key}) as answer,
                ):
                    if answer.status < 300:
                        return tries, await answer.json()
                    problem = RefusedError(answer.status, _words(await answer.text()))
                    wait_s = float(answer.headers.get("Retry-After", pause))
                    if answer.status < 500 and answer.status != 429:
                        raise problem
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = ApiUnreachableError(self.url, str(error) or type(error).__name__)
            if time.monotonic() + wait_s > give_up:
                raise problem
            self.retried += 1
            await asyncio.sleep(wait_s)
            pause = min(_PAUSE_S[1], pause * 2)

    async def get(self, path: str) -> Any:
        """The JSON at this path. Raises RefusedError, ApiUnreachableError."""
        try:
            async with self._gate, self._session.get(f"{self.url}{path}") as answer:
                if answer.status >= 300:
                    raise RefusedError(answer.status, _words(await answer.text()))
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiUnreachableError(self.url, str(error) or type(error).__name__) from None

    async def stats(self) -> dict[str, int]:
        """The API's counts: pending, processing, completed, failed, …"""
        stats: dict[str, int] = await self.get("/api/v1/stats")
        return stats


def _words(text: str) -> str:
    """What a problem document says; any other text as it is."""
    try:
        problem = json.loads(text)
        return " ".join(filter(None, (problem["detail"], problem.get("hint"))))
    except (ValueError, KeyError, TypeError, AttributeError):
        return text[:500]
