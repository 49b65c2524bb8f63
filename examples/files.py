"""Files that are either whole or not there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headrace import Permanent

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def output_path(directory: Path, task_id: str, suffix: str) -> Path:
    """Where a task writes. The name is the task's id, so a re-run replaces what the first run wrote."""
    name = f"{task_id}.{suffix}"
    if not _SAFE_NAME.fullmatch(name):
        raise Permanent(f"The task id {task_id!r} cannot be used as the name of a file.")
    return directory / name


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write: it gets its name, safe on disk, when the block ends, and is gone if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
