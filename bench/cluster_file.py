"""Every round as JSON, with every look of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Final

from .cluster_samples import Round, Sample
from .cluster_table import Rounds

NAMES: Final = [field.name for field in fields(Sample)]


def save(path: Path, rounds: Rounds, facts: Mapping[str, Any]) -> None:
    """A sample is a list, of what `samples` names."""
    plain = {name: [_plain(each) for each in of_one] for name, of_one in rounds.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"facts": facts, "samples": NAMES, "rounds": plain}) + "\n")


def load(path: Path) -> tuple[Rounds, dict[str, Any]]:
    """What `save` wrote."""
    read = json.loads(path.read_text())
    assert read["samples"] == NAMES, f"{path} was written by another version"
    return {name: [_round(each) for each in of_one] for name, of_one in read["rounds"].items()}, read["facts"]


def _plain(each: Round) -> dict[str, Any]:
    lines = {name: [(round(seen.at_s, 3), *astuple(seen)[1:]) for seen in line] for name, line in each.lines.items()}
    return {"figures": each.figures, "lines": lines}


def _round(read: Mapping[str, Any]) -> Round:
    return Round(read["figures"], {name: [Sample(*each) for each in line] for name, line in read["lines"].items()})
