"""`python -m chaos`: a soak. `make soak` runs it; the seed that it prints makes the same faults and tasks again."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

from headrace_cli.redis_binary import RedisBinary, find

from .nemesis import plan
from .soak import Options, soak


def options() -> tuple[Options, Path | None]:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--rate", type=float, default=40.0, help="submissions a second")
    parser.add_argument("--every", default="20-40", help="seconds between two faults, as 20-40")
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="always")
    parser.add_argument("--json", type=Path, help="write the numbers into this file")
    given = parser.parse_args()
    least, _, most = given.every.partition("-")
    every_s = (float(least), float(most or least))
    return Options(given.seed, given.minutes, given.rate, every_s, given.appendfsync), given.json


def main() -> int:
    chosen, file = options()
    binary = next((each for each in find() if isinstance(each, RedisBinary)), None)
    if binary is None:
        print("No Redis was found; the soak kills a real one.")
        return 1
    print(f"Seed {chosen.seed}, {chosen.minutes:g} minutes, {binary}, appendfsync {chosen.appendfsync}. The plan:")
    print("\n".join(map(str, plan(chosen.seed, chosen.minutes * 60, chosen.every_s))), flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = asyncio.run(soak(chosen, binary, Path(folder)))
        if report.wrong:
            _show_logs(Path(folder))
    print(f"{time.monotonic() - began:.0f} s\n{report.text()}")
    if file is not None:
        file.write_text(json.dumps(report.numbers(), indent=1) + "\n")
    return 1 if report.wrong else 0


def _show_logs(folder: Path) -> None:
    for log in sorted(folder.glob("*.log")):
        print(f"-- {log.name}\n{log.read_text(errors='replace')[-3_000:]}")


if __name__ == "__main__":
    sys.exit(main())
