"""What Redis says in the end: every task, the accepted completions, and what keys and consumers are left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from headrace.broker.broker import Queue, TaskView, view
from headrace.broker.client import AsyncClient
from headrace.task import State

from .checker import End
from .ledger import Token

QUEUE = Queue("default")
AT_ONCE = 100


def end_of(seen: TaskView) -> End:
    """The facts of one task that the checker asks for."""
    result: Token | None = None
    if seen.result is not None:
        epoch, attempt = msgspec.json.decode(seen.result, type=tuple[int, int])
        result = (epoch, attempt)
    counters = seen.counters
    completions = sum(attempt.outcome == State.COMPLETED for attempt in seen.attempts)
    return End(
        seen.state,
        counters.attempts,
        counters.failures,
        counters.crashes,
        counters.interruptions,
        completions,
        result,
    )


async def ends_of(client: AsyncClient, ids: Iterable[str]) -> dict[str, End]:
    """Id → how the task stands; one that Redis does not know is missing."""
    found, all_ids = dict[str, End](), list(ids)
    for start in range(0, len(all_ids), AT_ONCE):
        some = all_ids[start : start + AT_ONCE]
        answers = await client.call(QUEUE.find(some))
        found |= {each: end_of(view(each, QUEUE.name, one)) for each, one in zip(some, answers, strict=True) if one}
    return found


async def drained(client: AsyncClient, within_s: float) -> bool:
    """Wait until no task lives; False if some still do after `within_s`."""
    try:
        async with asyncio.timeout(within_s):
            while (await client.call(QUEUE.depth())).live:  # noqa: ASYNC110 - it happens in Redis
                await asyncio.sleep(0.1)
        return True
    except TimeoutError:
        return False


async def completions(client: AsyncClient) -> int:
    """Accepted completions, as Redis counted them."""
    return (await client.call(QUEUE.depth())).ended("completed")


@dataclass(frozen=True)
class Left:
    """What is in Redis when all is done, without the records of ended tasks."""

    keys: tuple[str, ...]
    records: int
    consumers: int
    """The most of any stream."""
    beats: int
    """Workers that are remembered."""


FIXED = {
    *"3210rs",
    "dead",
    "ctl",
    "stats",
    "journal",
    "wake",
    "w",
    "wd",
    "queues",
    "types",
    "versions",
    "secret",
    "audit",
}
"""Last parts of the keys that a queue keeps however many tasks it has seen."""


def unexpected_keys(left: Left) -> list[str]:
    """Keys that would not be there if all that tasks leave behind were removed."""
    return [key for key in left.keys if re.sub(r"^hr:\{[^}]*\}:", "", key) not in FIXED]


async def left_in(client: AsyncClient) -> Left:
    """All keys, by SCAN."""
    names: set[str] = set()
    records, cursor = 0, b"0"
    while True:
        cursor, found = await client.command("SCAN", cursor, "COUNT", 1_000)
        for key in (each.decode() for each in found):
            if re.match(r"hr:\{[^}]*\}:t:", key):
                records += 1
            else:
                names.add(key)
        if cursor == b"0":
            break
    consumers = 0
    for digit in "rs3210":
        if QUEUE.keys[digit] in names:
            consumers = max(consumers, len(await client.command("XINFO", "CONSUMERS", QUEUE.keys[digit], "g")))
    beats = await client.command("HLEN", QUEUE.keys["w"])
    return Left(tuple(sorted(names)), records, consumers, beats)
