"""A folder without an application: what `headrace dev` finds there, and the file it writes when asked to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from .load import AppLoadError

TEMPLATE: Final = '''\
"""My tasks. `headrace dev` runs them, and starts them anew whenever this file is saved."""

from headrace import App

app = App("tasks")

SAMPLES = [("hello", 1, {"name": "world"})]  # type, priority, payload: one is submitted at the start


@app.task(priority="medium", max_retries=3)
async def hello(name: str) -> str:
    return f"Hello, {name}!"
'''
_USUAL: Final = ("tasks", "app")
"""Modules that are looked at when nobody named one."""


def choose_app(folder: Path, named: str | None, *, init: bool) -> str:
    """The application's module: the one that is named, that is written now, or that is found. Raises AppLoadError."""
    if init:
        return write_app(folder)
    return named or os.environ.get("HEADRACE_APP") or find_app(folder)


def find_app(folder: Path) -> str:
    """The module here that seems to hold an application. Raises AppLoadError, which says what can be done."""
    for name in _USUAL:
        file = folder / f"{name}.py"
        # Read, not imported: a file that only has the name could do anything.
        if file.is_file() and "headrace" in file.read_text(errors="replace"):
            return name
    raise AppLoadError(
        "No application was named, and this folder has no tasks.py or app.py that uses headrace",
        "Write --app MODULE for one you have; or run `headrace dev --init`, which writes a tasks.py of "
        f"{len(TEMPLATE.splitlines())} lines and starts it",
    )


def write_app(folder: Path) -> str:
    """Write tasks.py and return its module's name. Raises AppLoadError where there is one."""
    file = folder / "tasks.py"
    try:
        with file.open("x") as out:
            out.write(TEMPLATE)
    except FileExistsError:
        raise AppLoadError(
            "--init writes a tasks.py, and there is one already", "Start it with `headrace dev`"
        ) from None
    except OSError as error:
        raise AppLoadError(
            f"The file {file} cannot be written: {error.strerror}", "Start in a folder that you may write to"
        ) from None
    return file.stem
