"""What the last `make chaos` saw of each test, kept in results.json, and what the page says of it.

    PYTHONPATH=tests python -m chaos.results

writes the page anew from what is kept, as after a row was added to it by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from .table import PAGE, Mode, read, write

FILE: Final = Path(__file__).with_name("results.json")
_WORDS: Final = ("failed", "error", "passed", "skipped")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One test with its parameters."""

    outcome: str
    seconds: float
    on: str
    """The day, as 2026-01-15."""
    said: list[str] = []


Results = dict[str, Result]
"""`module::test[parameters]` → how it fared."""


def load(file: Path = FILE) -> Results:
    """As the last runs left it."""
    return msgspec.json.decode(file.read_bytes(), type=Results) if file.exists() else {}


def keep(new: Mapping[str, Result], file: Path = FILE, page: Path = PAGE) -> None:
    """Put the results of a run, which may be of some tests only, among the others, and write the page."""
    both = load(file) | dict(new)
    lines = msgspec.json.format(msgspec.json.encode(dict(sorted(both.items()))), indent=1)
    file.write_bytes(lines + b"\n")
    write({mode.name: seen(mode, both) for mode in read(page)}, summary(both), page)


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def of(mode: Mode, results: Results) -> list[Result]:
    """Those of the mode's tests."""
    named = {f"{module}::{test}" for module, test in mode.tests}
    return [result for name, result in results.items() if name.partition("[")[0] in named]


def seen(mode: Mode, results: Results) -> str:
    """The last column: counts, time, and what the tests told."""
    its = of(mode, results)
    if not its:
        return "–"
    counts = Counter(result.outcome for result in its)
    numbers = ", ".join(f"{counts[word]} {word}" for word in _WORDS if counts[word])
    said = dict.fromkeys(line for result in its for line in result.said)
    run = {name.partition("[")[0] for name in results}
    missing = sum(f"{module}::{test}" not in run for module, test in mode.tests)
    rest = [f"{missing} of {len(mode.tests)} tests not run"] if missing else []
    return "; ".join([f"{numbers} in {sum(result.seconds for result in its):.0f} s", *said, *rest])


def summary(results: Results) -> str:
    """The line below the table."""
    if not results:
        return "`make chaos` has not run yet."
    days = sorted(result.on for result in results.values())
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    seconds = sum(result.seconds for result in results.values())
    return f"The last column is of {when}: {len(results)} tests, {seconds / 60:.0f} minutes one after the other."


if __name__ == "__main__":
    keep({})
