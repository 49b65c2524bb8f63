"""Who submits: over HTTP under idempotency keys, or by the library under ids of its own, again until it is answered."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from chaos.ledger import Ledger
from headrace.connections import Connections
from headrace.errors import HeadraceError
from headrace.task import TERMINAL

from . import app
from .world import Process

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 3.0
AGAIN_S: Final = 0.2
TASKS: Final = "/api/v1/tasks"
BULK: Final = "/api/v1/bulk"
CANCELLED: Final = 0.06
FOLLOWED: Final = 0.3
"""Shares of the tasks over HTTP."""
TYPES: Final = ("coroutine", "thread")
ENDED: Final = {*TERMINAL, "404"}


@dataclass
class Heard:
    """What clients heard."""

    acked: dict[str, list[float]] = field(default_factory=dict)
    """Id → the times at which it was said to be accepted."""
    repeated: int = 0
    refused: list[str] = field(default_factory=list)
    """Answers that no repetition mends."""
    states: dict[str, list[str]] = field(default_factory=dict)
    """Id → what it was said to be, whenever somebody asked; `404` for a task that is unknown."""
    cancels: set[str] = field(default_factory=set)
    """Tasks that somebody wanted to cancel."""
    types: dict[str, str] = field(default_factory=dict)
    """Id → type."""
    types_cancelled: set[str] = field(default_factory=set)
    """All waiting tasks of these types somebody wanted to cancel at some time."""

    def accepted(self, task_id: str, at: float) -> None:
        self.acked.setdefault(task_id, []).append(at)


@dataclass(frozen=True)
class Order:
    """How much a client submits."""

    tasks: int
    every_s: float
    """Between two, on average."""
    pills: float = 0.0
    """Share of tasks that kill their worker."""
    queues: tuple[str, ...] = ("default",)


def body_of(dice: Random, order: Order) -> dict[str, Any]:
    """A submission: mostly short tasks, some long ones, some that fail at first, some that are due later."""
    queue = dice.choice(order.queues)
    if dice.random() < order.pills:
        return {"type": "pill", "queue": queue, "payload": {"failures": dice.choice((1, 1, 2, 5))}}
    ms = dice.choice((0, 0, 1, 5, 20, 100, 1_000))
    payload = {"ms": ms, "failures": dice.choice((0, 0, 0, 0, 0, 1, 2))}
    body: dict[str, Any] = {"type": dice.choice(TYPES), "queue": queue, "payload": payload}
    body["priority"] = dice.randrange(4)
    if dice.random() < 0.15:
        body["delay"] = dice.choice((0.5, 3))
    return body


class Submitter:
    """One process that submits."""

    def __init__(self, process: Process, heard: Heard, order: Order) -> None:
        self.process = process
        self.heard = heard
        self.order = order
        self.dice = process.world.dice_of(process.name)

    async def run(self) -> None:
        """Submit all, and wait until all is answered."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.order.tasks):
                group.create_task(self._until_answered(number, body_of(self.dice, self.order)))
                await asyncio.sleep(self.dice.expovariate(1 / self.order.every_s))

    async def _until_answered(self, number: int, body: dict[str, Any]) -> None:
        attempt = 0
        while (task_id := await self.submit(number, attempt, body)) is None:
            attempt += 1
            self.heard.repeated += 1
            await asyncio.sleep(AGAIN_S)
        if task_id:
            self.heard.accepted(task_id, self.process.world.now)
            self.heard.types[task_id] = body["type"]
            await self.follow(task_id)

    async def follow(self, task_id: str) -> None:
        """What is done with a task that was accepted."""

    async def submit(self, number: int, attempt: int, body: dict[str, Any]) -> str | None:
        """The task's id; '' if it was refused for good, None if it is to be sent again."""
        raise NotImplementedError


class OverHttp(Submitter):
    """In turn to each of several APIs, which listen on `ports`."""

    def __init__(self, process: Process, heard: Heard, order: Order, ports: list[int]) -> None:
        super().__init__(process, heard, order)
        self.ports = ports

    async def submit(self, number: int, attempt: int, body: dict[str, Any]) -> str | None:
        port = self.ports[(number + attempt) % len(self.ports)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, said = await ask(port, "POST", TASKS, body, f"{self.process.name}-{number}")
        except (OSError, TimeoutError, EOFError, ValueError):
            return None
        if status == 201:
            return str(said["task_id"])
        if status in {429, 503}:
            return None
        self.heard.refused.append(f"{status}: {said}")
        return ""

    async def follow(self, task_id: str) -> None:
        """Some are cancelled, some are asked for until they have ended."""
        drawn = self.dice.random()
        if drawn < CANCELLED:
            self.heard.cancels.add(task_id)
            await self._ask_once("POST", f"{TASKS}/{task_id}:cancel")
        elif drawn < CANCELLED + FOLLOWED:
            seen = self.heard.states.setdefault(task_id, [])
            while not seen or seen[-1] not in ENDED:
                await asyncio.sleep(self.dice.random())
                said = await self._ask_once("GET", f"{TASKS}/{task_id}?wait={self.dice.choice((0, 2))}")
                seen += [said] if said else []

    async def _ask_once(self, method: str, path: str) -> str:
        """The status in the answer, `404`, or nothing."""
        status, said = await ask_once(self.dice.choice(self.ports), method, path)
        if status == 404:
            return "404"
        return str(said["status"]) if status == 200 else ""


class Canceller:
    """Cancels all waiting tasks of a type, by a bulk job, and sees it through; then those of the next type."""

    def __init__(self, process: Process, heard: Heard, ports: list[int], within_s: float) -> None:
        self.heard = heard
        self.ports = ports
        self.within_s = within_s
        self.dice = process.world.dice_of(process.name)

    async def run(self) -> None:
        for type_ in TYPES:
            await asyncio.sleep(self.dice.random() * self.within_s / len(TYPES))
            self.heard.types_cancelled.add(type_)
            job = await self._until(202, "POST", BULK, {"action": "cancel", "filter": f"type:{type_}"})
            while job["state"] == "running":
                await asyncio.sleep(AGAIN_S)
                job = await self._until(200, "GET", f"{BULK}/{job['id']}")

    async def _until(self, wanted: int, method: str, path: str, body: Any = None) -> Any:
        """What the answer of this status says. It is asked for until it comes."""
        while True:
            status, said = await ask_once(self.dice.choice(self.ports), method, path, body)
            if status == wanted:
                return said
            if status not in {0, 429, 503}:
                self.heard.refused.append(f"{method} {path}: {status}: {said}")
            await asyncio.sleep(AGAIN_S)


class ByLibrary(Submitter):
    """With an App of its own."""

    def __init__(self, process: Process, heard: Heard, order: Order, durability: str) -> None:
        super().__init__(process, heard, order)
        self.made = app.make(process, Ledger())
        self.made.app._connections = Connections(app.REDIS, None, {"HEADRACE_DURABILITY": durability})

    async def submit(self, number: int, attempt: int, body: dict[str, Any]) -> str | None:
        options = {name: body[name] for name in ("priority", "delay", "queue") if name in body}
        task = self.made.types[body["type"]].using(key=f"{self.process.name}-{number}", **options)
        try:
            return str((await task.aenqueue(**body["payload"])).id)
        except HeadraceError as error:
            if error.code in {"store_unavailable", "store_timeout", "durability_unconfirmed", "store_full"}:
                return None
            self.heard.refused.append(f"{error.code}: {error}")
            return ""


async def ask_once(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """The answer; status 0 if none came."""
    try:
        async with asyncio.timeout(2 * PATIENCE_S):
            return await ask(port, method, path, body)
    except (OSError, TimeoutError, EOFError, ValueError):
        return 0, None


async def ask(port: int, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    """One request on a connection of its own. Raises OSError, EOFError, ValueError."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        head += "\r\n"
        writer.write(head.encode() + data)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        text = await reader.readexactly(int(headers["content-length"]))
        return int(first.split(" ")[1]), json.loads(text)
    finally:
        writer.close()
