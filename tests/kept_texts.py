"""Texts as they really look, kept in tests/snapshots/. `SNAPSHOTS=write pytest …` writes them anew: read the diff."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


def check(name: str, text: str) -> None:
    """The text is the one that is kept under this name. Escapes are shown as `\\e`, blanks at the ends of lines go."""
    shown = "\n".join(line.rstrip() for line in text.replace("\x1b", "\\e").split("\n"))
    file = FOLDER / f"{name}.txt"
    if os.environ.get("SNAPSHOTS") == "write":
        file.write_text(shown)
    kept = file.read_text() if file.exists() else ""
    difference = "\n".join(difflib.unified_diff(kept.splitlines(), shown.splitlines(), "kept", "shown", lineterm=""))
    assert shown == kept, f"{file} differs; SNAPSHOTS=write writes it anew\n{difference}"
