"""The code of the last release, out of git, to run beside today's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from .table import ROOT

LAST: Final = "690385e3f6435dd04e21ec76523234283cbbdf83"
"""A commit until there is a release; then its tag, with each release the next."""
_FOLDERS: Final = ("worker", "api", "cli", "operator")


def unpack(folder: Path) -> str:
    """Its packages in `folder`. Returns what PYTHONPATH is to be; raises LookupError where this checkout lacks it."""
    wanted = ["git", "-C", str(ROOT), "archive", LAST, *_FOLDERS]
    try:
        archive = subprocess.run(wanted, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise LookupError(f"commit {LAST[:8]} is not in this checkout; fetch the whole history of git") from None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return os.pathsep.join(str(folder / each) for each in _FOLDERS)
