"""Reload on save: which files changed, told in bursts as an editor makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_QUIET_MS: Final = 60
"""A burst is over when nothing changed for so long."""


def available() -> bool:
    """Whether changes can be watched here: the package watchfiles comes with headrace[dev]."""
    return find_spec("watchfiles") is not None


class Watch:
    """Watches files; `watch` changes which. For one task, whose cancellation ends it."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = frozenset(files)
        self._renewed = asyncio.Event()

    @property
    def files(self) -> frozenset[str]:
        """What is watched."""
        return self._files

    def watch(self, files: Iterable[str]) -> None:
        """Watch these files from now on."""
        before, self._files = _folders(self._files), frozenset(files)
        if _folders(self._files) != before:
            self._renewed.set()

    async def bursts(self) -> AsyncIterator[list[str]]:
        """The paths of the files that changed together, sorted."""
        from watchfiles import Change, awatch

        def wanted(change: Change, path: str) -> bool:
            return path in self._files

        while True:
            self._renewed.clear()
            # Folders, not files: most editors write another file and rename it.
            folders = _folders(self._files)
            async for changes in awatch(
                *folders, watch_filter=wanted, step=_QUIET_MS, recursive=False, stop_event=self._renewed
            ):
                yield sorted({path for _, path in changes})


def _folders(files: Iterable[str]) -> frozenset[str]:
    return frozenset(str(Path(file).parent) for file in files)


def describe(changed: list[str]) -> str:
    """`tasks.py`, or `tasks.py and 2 more`."""
    path, here = Path(changed[0]), Path.cwd()
    name = str(path.relative_to(here)) if path.is_relative_to(here) else changed[0]
    return name if len(changed) == 1 else f"{name} and {len(changed) - 1} more"
