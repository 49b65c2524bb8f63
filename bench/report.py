"""The table, and the JSON beside it."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .harness import Bench, Reading, Result

ROOT = Path(__file__).parent.parent
PIPE_WIDTH = 190
BUSY: Final = 0.5
"""Load average above which others are at work."""


def machine(bench: Bench) -> dict[str, Any]:
    """What the figures depend on. Taken before the first round."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "redis": f"{bench.binary.product} {'.'.join(map(str, bench.binary.version))}",
        "sizes": asdict(bench.sizes),
        "transport": "loopback TCP" if bench.tcp else "a Unix socket",
        "aof": bench.aof,
        "floor": bench.floor.name,
        "http_load": "wrk" if shutil.which("wrk") else "bench/load.py",
        "packages": {name: _version(name) for name in ("headrace", "uvloop", "hiredis", "msgspec", "aiohttp", "redis")},
        "commit": commit(),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


COLUMNS: Final = (
    "measure",
    "goal",
    "median",
    "",
    "min – max",
    "n",
    "rate/s",
    "floor/s",
    "client",
    "Redis",
    "prototype",
)


def show(results: Iterable[Result], facts: dict[str, Any], rounds: int, console: Console | None = None) -> None:
    """Print the table; without colours and lines in a pipe."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH, highlight=False, file=console.file)
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in {"measure", ""} else "right", no_wrap=name != "measure")
    for result in results:
        table.add_row(*_cells(result))
    console.print(table)
    console.print(
        f"\nMedians of {rounds} rounds. client and Redis: CPU in µs a task. {_sentence(facts)}", soft_wrap=True
    )


def _sentence(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cores']} cores, {facts['processor']}, load before {facts['load_before'][0]:g}, "
        f"{facts['redis']} over {facts['transport']}{', AOF everysec' if facts['aof'] else ''}, "
        f"Python {facts['python']}, floor: {facts['floor']}."
    )


def _cells(result: Result) -> list[str]:
    measure = result.measure
    sign = "≤" if measure.at_most else "≥"
    goal = "report" if measure.goal is None else f"{sign} {number(measure.goal)} {measure.unit}"
    if not result.readings:
        return [measure.title, goal, "–", "", result.note, "0", "", "", "", "", measure.prototype]
    mark = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}[result.reached]
    least, most = result.span
    return [
        measure.title,
        goal,
        f"{number(result.value)} {measure.unit}",
        mark,
        f"{number(least)} – {number(most)}",
        str(len(result.readings)),
        number(result.middle(lambda reading: reading.rate)),
        number(result.middle(lambda reading: reading.floor)),
        number(result.middle(lambda reading: reading.client_us)),
        number(result.middle(lambda reading: reading.redis_us)),
        measure.prototype,
    ]


def number(value: float) -> str:
    """Three digits that matter; nothing for NaN."""
    if math.isnan(value):
        return ""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def write(path: Path, results: Iterable[Result], facts: dict[str, Any], rounds: int) -> None:
    """Everything that was measured, each round of it."""
    rows = [
        {
            "key": result.measure.key,
            "title": result.measure.title.strip(),
            "unit": result.measure.unit,
            "goal": result.measure.goal,
            "at_most": result.measure.at_most,
            "reached": result.reached,
            "median": _plain(result.value),
            "rounds": [_reading(reading) for reading in result.readings],
            "note": result.note,
        }
        for result in results
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.encode({"machine": facts, "wanted_rounds": rounds, "measures": rows})
    path.write_bytes(msgspec.json.format(text, indent=2) + b"\n")


def _reading(reading: Reading) -> dict[str, float | None]:
    return {name: _plain(getattr(reading, name)) for name in Reading.__dataclass_fields__}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
