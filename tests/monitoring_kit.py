"""What the tests of monitoring share: the rules, names in queries, and a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from awaited import until
from headrace_cli.ports import free_port

ROOT: Final = Path(__file__).parent.parent
RULES: Final = ROOT / "charts" / "headrace" / "files" / "rules.yaml"
Json = dict[str, Any]

_WORDS: Final = {"and", "or", "unless", "bool", "offset"}


def rules() -> list[Json]:
    """All rules of the file, recording ones too."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, Json]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def names(query: str) -> set[str]:
    """The metrics that a query asks for."""
    told = {name for found in re.findall(r'__name__=~"([^"]+)"', query) for name in found.split("|")}
    query = re.sub(r"#[^\n]*", " ", query)
    query = re.sub(r'\{[^}]*\}|\[[^]]*\]|"[^"]*"', " ", query)
    query = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", query)
    return told | set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", query)) - _WORDS


def program(name: str) -> str | None:
    """`prometheus` or `promtool`, of Debian's package prometheus."""
    return shutil.which(name)


def promtool(*arguments: str) -> str:
    """What it prints. Raises AssertionError if it finds a fault."""
    found = program("promtool")
    assert found is not None
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server that scrapes every second and evaluates our rules as often."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of its API. Raises AssertionError with what it says is wrong."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {json.load(error)['error']}") from error

    def query(self, promql: str) -> list[tuple[Json, float]]:
        """(labels, value) of each series that there is now, without those that are no number."""
        found = [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=promql)["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def rules(self) -> list[Json]:
        """The rules as it last evaluated them."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, targets: dict[str, str]) -> Iterator[Prometheus]:
    """Scrapes `targets` (job → address) until the block ends. The operator's labels are kept, as by the PodMonitor."""
    found, port = program("prometheus"), free_port()
    assert found is not None
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "honor_labels": job.endswith("operator"), "static_configs": [{"targets": [address]}]}
            for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                found, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        made = Prometheus(f"http://127.0.0.1:{port}")
        until(lambda: _is_ready(made.url), bool, "Prometheus is ready")
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return True
    except OSError:
        return False
