"""What the last `make chaos` saw of each test, kept in results.json, and what the page says of it.

    PYTHONPATH=tests python -m chaos.results

writes the page anew from what is kept, as after a row was added to it by hand.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from .table import PAGE, ROOT, Mode, read, write

FILE: Final = Path(__file__).with_name("results.json")
ON_A_CLUSTER: Final = "test_cluster_"
"""How the modules begin whose tests need a cluster: `make chaos` leaves them to `make chaos-cluster`."""
_WORDS: Final = ("failed", "error", "passed", "skipped")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One test with its parameters."""

    outcome: str
    seconds: float
    on: str
    """The day, as 2026-01-15."""
    commit: str = ""
    """What was run, see `commit`; empty if nobody noted it."""
    said: list[str] = []


Results = dict[str, Result]
"""`module::test[parameters]` → how it fared."""


def load(file: Path = FILE) -> Results:
    """As the last runs left it."""
    return msgspec.json.decode(file.read_bytes(), type=Results) if file.exists() else {}


def keep(new: Mapping[str, Result], file: Path = FILE, page: Path = PAGE) -> None:
    """Put the results of a run, which may be of some tests only, among the others, and write the page."""
    named = {f"{module}::{test}" for mode in read(page) for module, test in mode.tests}
    both = {name: each for name, each in (load(file) | dict(new)).items() if name.partition("[")[0] in named}
    lines = msgspec.json.format(msgspec.json.encode(dict(sorted(both.items()))), indent=1)
    file.write_bytes(lines + b"\n")
    write({mode.name: seen(mode, both) for mode in read(page)}, summary(both), page)


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def commit() -> str:
    """The short hash of what lies in this checkout; with a `+` if files differ from it, but for what a run writes."""
    written = (f":!{each.relative_to(ROOT)}" for each in (FILE, PAGE))
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{name}+" if changed else name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def of(mode: Mode, results: Results) -> list[Result]:
    """Those of the mode's tests."""
    named = {f"{module}::{test}" for module, test in mode.tests}
    return [result for name, result in results.items() if name.partition("[")[0] in named]


def seen(mode: Mode, results: Results) -> str:
    """The last column: counts, time, what the tests told, and which of them have not run."""
    its = of(mode, results)
    counts = Counter(result.outcome for result in its)
    numbers = ", ".join(f"{counts[word]} {word}" for word in _WORDS if counts[word])
    said = dict.fromkeys(line for result in its for line in result.said)
    its_time = [f"{numbers} in {sum(result.seconds for result in its):.0f} s"] if its else []
    return "; ".join([*its_time, *said, *_not_run(mode, results)]) or "–"


def _not_run(mode: Mode, results: Results) -> list[str]:
    run = {name.partition("[")[0] for name in results}
    missing = [module for module, test in mode.tests if f"{module}::{test}" not in run]
    apart = sum(module.startswith(ON_A_CLUSTER) for module in missing)
    here = len(missing) - apart
    on_cluster = [f"{apart} on a cluster only"] if apart else []
    return ([f"{here} of {len(mode.tests)} tests not run"] if here else []) + on_cluster


def summary(results: Results) -> str:
    """The line below the table."""
    if not results:
        return "`make chaos` has not run yet."
    days = sorted(result.on for result in results.values())
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    seconds = sum(result.seconds for result in results.values())
    commits = sorted({f"`{each.commit}`" if each.commit else "one not noted" for each in results.values()})
    length = f"{len(results)} tests, {seconds / 60:.0f} minutes one after the other"
    return f"The last column is of {when} (commits: {', '.join(commits)}): {length}."


if __name__ == "__main__":
    keep({})
