"""Reload on save: which files changed since they were imported, told in bursts as an editor makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_QUIET_MS: Final = 60
"""A burst is over when nothing changed for so long."""
_LOOK_MS: Final = 500
"""Without news the files are looked at this often: a change may come before the watch begins, and some shared folders
tell of none."""

Files = Mapping[str, str]
"""Path → what `stamp` said of it when it was imported."""


def available() -> bool:
    """Whether changes can be watched here: the package watchfiles comes with headrace[dev]."""
    return find_spec("watchfiles") is not None


def stamp(path: str) -> str:
    """What changes when a file does; empty where there is none, as for a moment while it is saved."""
    try:
        facts = Path(path).stat()
    except OSError:
        return ""
    return f"{facts.st_mtime_ns}-{facts.st_size}-{facts.st_ino}"


class Watch:
    """Watches files; `watch` changes which. For one task, whose cancellation ends it."""

    def __init__(self, files: Files) -> None:
        self._files = dict(files)
        self._renewed = asyncio.Event()

    def watch(self, files: Files) -> None:
        """Watch these files from now on."""
        before, self._files = _folders(self._files), dict(files)
        if _folders(self._files) != before:
            self._renewed.set()

    async def bursts(self) -> AsyncIterator[list[str]]:
        """The paths of the files that changed together, sorted."""
        from watchfiles import awatch

        while True:
            self._renewed.clear()
            # Folders, not files: most editors write another file and rename it.
            async for _ in awatch(
                *_folders(self._files),
                recursive=False,
                step=_QUIET_MS,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                stop_event=self._renewed,
            ):
                if changed := self._changed():
                    yield changed

    def _changed(self) -> list[str]:
        now = {path: stamp(path) for path in self._files}
        changed = sorted(path for path, mark in now.items() if mark and mark != self._files[path])
        self._files |= {path: now[path] for path in changed}
        return changed


def _folders(files: Files) -> frozenset[str]:
    return frozenset(str(Path(file).parent) for file in files)


def describe(changed: list[str]) -> str:
    """`tasks.py`, or `tasks.py and 2 more`."""
    path, here = Path(changed[0]), Path.cwd()
    name = str(path.relative_to(here)) if path.is_relative_to(here) else changed[0]
    return name if len(changed) == 1 else f"{name} and {len(changed) - 1} more"
