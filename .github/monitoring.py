"""Waits until Prometheus sees all that it should and Grafana has the dashboards; says what is missing otherwise.

`python3 .github/monitoring.py` asks the two of `make docker-up`. No package is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parent.parent / "charts" / "headrace" / "files" / "dashboards"
PAUSE_S = 1.0


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # of the command line
        return json.load(answer)


def of_prometheus(url: str, targets: dict[str, int]) -> list[str]:
    """What Prometheus lacks; nothing, if each job has so many targets that are up, and each rule could be evaluated."""
    found = asked(f"{url}/api/v1/targets?state=active")["data"]["activeTargets"]
    up = Counter(each["labels"]["job"] for each in found if each["health"] == "up")
    lacks = [f"{up[job]} of {count} targets of {job} are up" for job, count in targets.items() if up[job] != count]
    rules = [rule for group in asked(f"{url}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    lacks += [f"rule {rule['name']} is {rule['health']}" for rule in rules if rule["health"] != "ok"]
    return lacks if rules else [*lacks, "Prometheus has no rules"]


def of_grafana(url: str, wanted: set[str]) -> list[str]:
    """The dashboards that Grafana lacks, by uid."""
    found = {each["uid"] for each in asked(f"{url}/api/search?type=dash-db")}
    return [f"Grafana has no dashboard {uid}" for uid in sorted(wanted - found)]


def lacking(prometheus: str, grafana: str, targets: dict[str, int]) -> list[str]:
    lacks: list[str] = []
    try:
        lacks += of_prometheus(prometheus, targets)
        if grafana:
            lacks += of_grafana(grafana, {json.loads(file.read_text())["uid"] for file in DASHBOARDS.glob("*.json")})
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        lacks.append(f"no answer yet: {error}")
    return lacks


def counted(text: str) -> tuple[str, int]:
    job, _, count = text.partition("=")
    return job, int(count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://localhost:9090")
    parser.add_argument("--grafana", default="http://localhost:3000", help="empty: do not ask it")
    parser.add_argument("--patience", type=float, default=90, help="seconds")
    parser.add_argument("targets", nargs="*", type=counted, default=[("headrace-api", 1), ("headrace-worker", 3)])
    given = parser.parse_args()
    give_up = time.monotonic() + given.patience
    while lacks := lacking(given.prometheus, given.grafana, dict(given.targets)):
        if time.monotonic() > give_up:
            sys.stderr.write("\n".join(lacks) + "\n")
            return 1
        time.sleep(PAUSE_S)
    sys.stdout.write("Every target is up, every rule is evaluated, every dashboard is there.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
