"""Reload on save: which files changed since they were imported, told in bursts as an editor makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_QUIET_MS: Final = 60
"""A burst is over when nothing changed for so long."""
_LOOK_MS: Final = 500
"""Without news the files are looked at this often: a change may come before the watch begins, and some shared folders
tell of none."""

_NOT_OURS: Final = ("site-packages", "dist-packages", "node_modules", "__pycache__")

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
        self._beside: Files = {}
        """The Python files near these, as they were when the last burst began."""
        self._widened = False
        self._renewed = asyncio.Event()

    def widen(self) -> None:
        """The application cannot be imported: until `watch` says what it is made of, any Python file near may mend it.

        What it lacks may be a module that nobody has imported yet, or has written yet.
        """
        self._widened = True

    def watch(self, files: Files) -> None:
        """Watch these files from now on."""
        before, self._files = _folders(self._files), dict(files)
        self._widened = False
        if _folders(self._files) != before:
            self._renewed.set()

    async def bursts(self) -> AsyncIterator[list[str]]:
        """The paths of the files that changed together, sorted."""
        while True:
            self._renewed.clear()
            async for _ in self._moments():
                if changed := self._changed():
                    yield changed

    async def _moments(self) -> AsyncIterator[None]:
        """When to look at the files, until they are others."""
        from watchfiles import awatch

        try:
            # Folders, not files: most editors write another file and rename it.
            async for _ in awatch(
                *_folders(self._files),
                recursive=False,
                step=_QUIET_MS,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                stop_event=self._renewed,
            ):
                yield
        except (OSError, RuntimeError):  # the latter is what it makes of the kernel's errors
            # A person's editors may hold all watches that the kernel gives out, and a folder may just have gone.
            while not self._renewed.is_set():
                yield
                await asyncio.sleep(_LOOK_MS / 1_000)

    def _changed(self) -> list[str]:
        known = {**(self._beside if self._widened else {}), **self._files}
        now = {path: stamp(path) for path in {*known, *(_near(self._files) if self._widened else ())}}
        changed = sorted(path for path, mark in now.items() if mark and mark != known.get(path))
        if changed:
            self._files = {path: now[path] or mark for path, mark in self._files.items()}
            # Before anybody looks at the application, so that nothing is missed that is saved meanwhile.
            self._beside = {path: stamp(path) for path in _near(self._files)}
        return changed


def _folders(files: Files) -> frozenset[str]:
    return frozenset(str(Path(file).parent) for file in files)


def _near(files: Files) -> Iterator[str]:
    """Every Python file in the folders of these, and one folder deeper."""
    for folder in map(Path, _folders(files)):
        for path in (*folder.glob("*.py"), *folder.glob("*/*.py")):
            if path.parent == folder or not is_foreign(path.parent.name):
                yield str(path)


def is_foreign(folder: str) -> bool:
    """Whether a folder of this name holds nothing that a person writes."""
    return folder.startswith(".") or folder in _NOT_OURS


def describe(changed: list[str]) -> str:
    """`tasks.py`, or `tasks.py and 2 more`."""
    path, here = Path(changed[0]), Path.cwd()
    name = str(path.relative_to(here)) if path.is_relative_to(here) else changed[0]
    return name if len(changed) == 1 else f"{name} and {len(changed) - 1} more"
