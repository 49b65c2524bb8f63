"""Why a task failed last: the exception and the place in the application where it was raised."""

from __future__ import annotations

import re
from typing import Final

from headrace.broker.replies import TaskView
from headrace.task import Failure, State

_FRAME: Final = re.compile(r'File "([^"\n]+)", line (\d+), in ([^\n]+)')
_OTHERS: Final = re.compile(r"[/\\](?:site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|^<")
"""Installed packages and Python's own files."""
_SEPARATOR: Final = re.compile(r"[/\\]")
NOWHERE: Final = "-"


def last_failure(seen: TaskView) -> Failure | None:
    """What went wrong last; None for a task that completed or never failed.

    A worker that died reported nothing, but a failed task must say why it failed.
    """
    if seen.state is State.COMPLETED or not seen.attempts:
        return None
    last = seen.attempts[-1]
    if last.error is not None or last.outcome != "crashed":
        return last.error
    how = last.cause or "cause unknown"
    return Failure("Crashed", f"The worker that ran it died ({how}); that was crash {seen.counters.crashes}.")


def place_of(failure: Failure) -> str:
    """`folder/file.py:function` of the innermost frame that is the application's own; `-` without a traceback.

    Without the line: it moves with every release, and the same fault would be two.
    """
    frames = _FRAME.findall(failure.trace)
    own = [frame for frame in frames if not _OTHERS.search(frame[0])] or frames
    if not own:
        return NOWHERE
    path, _, function = own[-1]
    return f"{'/'.join(_SEPARATOR.split(path)[-2:])}:{function.strip()}"
