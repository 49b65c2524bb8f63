"""Whether this Redis keeps what it acknowledged: its policy for a full memory, and its append-only file.

Read from INFO, which each of our users may ask. CONFIG shows passwords, and managed servers often have none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, get_args

from headrace.errors import StoreUnavailable

from .connection import RedisError

logger = logging.getLogger(__name__)

Risk = Literal["eviction", "persistence", "untold"]
RISKS: Final[tuple[Risk, ...]] = get_args(Risk)
LOOK_S: Final = 60.0
"""Seconds between two looks: settings of a server can be changed while it runs."""


def judge(info: str) -> dict[Risk, str]:
    """What can lose tasks under a server that says this of its memory and persistence: a sentence each."""
    facts = dict(line.strip().partition(":")[::2] for line in info.splitlines())
    policy, file = facts.get("maxmemory_policy", ""), facts.get("aof_enabled", "")
    found: dict[Risk, str] = {}
    if policy and policy != "noeviction":
        found["eviction"] = f"{_dropped(policy)}; set maxmemory-policy noeviction"
    if file == "0" and "stand_in" not in facts:
        found["persistence"] = (
            "Redis keeps no append-only file, so a crash of its process loses what came since its last snapshot, "
            "or everything; set appendonly yes"
        )
    if not policy or not file:
        found["untold"] = (
            "Redis does not say how it keeps data (INFO memory and INFO persistence); "
            "see that it runs with maxmemory-policy noeviction and appendonly yes"
        )
    return found


def _dropped(policy: str) -> str:
    # What has a time to live are records of ended tasks; no key of a live task has one.
    if policy.startswith("volatile-"):
        return (
            f"Redis drops records of ended tasks when its memory is full (maxmemory-policy {policy}), "
            "and a task whose record is gone can be submitted and run again"
        )
    return f"Redis drops keys when its memory is full (maxmemory-policy {policy}), and a dropped key is lost tasks"


class Safety:
    """What one process knows of it. `ask` carries out one command of Redis."""

    def __init__(self, ask: Callable[[str, str], Awaitable[Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self.risks: Mapping[Risk, str] = {}
        self._ask = ask
        self._clock = clock
        self._looked = float("-inf")

    async def look(self) -> Mapping[Risk, str]:
        """As Redis said within the last minute, or before it went away. A new risk is logged."""
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked = now
            try:
                self._learn(judge(await self._info()))
            except StoreUnavailable:
                self._looked = float("-inf")
        return self.risks

    async def _info(self) -> str:
        try:
            sections = [await self._ask("INFO", section) for section in ("memory", "persistence")]
        except RedisError:
            return ""
        return "\n".join(section.decode(errors="replace") for section in sections)

    def _learn(self, risks: Mapping[Risk, str]) -> None:
        for risk in risks.keys() - self.risks.keys():
            logger.warning("%s", risks[risk], extra={"fields": {"risk": risk}})
        self.risks = risks
