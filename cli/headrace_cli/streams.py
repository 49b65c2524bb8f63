"""The standard streams, made such that every command can rely on all three."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["cannot_write", "prepare"]

_ESCAPE: Final = "headrace-escape"
_UNWRITABLE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def prepare() -> None:
    """Open what was closed, before a socket takes its number; escape what an encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - it stays open
    codecs.register_error(_ESCAPE, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """As JSON would write it, for what is printed may be JSON."""
    import json

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def cannot_write(error: Exception) -> str | None:
    """A sentence if this is of a stream that is full; None for any other error. One of a file names it."""
    if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
        return (
            f"The output cannot be written: {os.strerror(error.errno)}. Make room where it goes, or send it elsewhere."
        )
    return None
