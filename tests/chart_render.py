"""The Helm chart as it is rendered, without a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import helm

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "charts" / "headrace"
CASES: Final = tuple(path.name.removesuffix("-values.yaml") for path in sorted((CHART / "ci").glob("*.yaml")))
"""Sets of values that every check renders."""
Json = dict[str, Any]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command of helm."""
    return subprocess.run([str(helm.build()), *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


def template(*arguments: str) -> list[Json]:
    """The objects of release `headrace` in namespace `tasks`."""
    done = run("template", "headrace", str(CHART), "--namespace", "tasks", *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Strict) if each]


class Strict(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """Refuses what readers disagree about: a key that a map has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{twice} twice in a map: {node.start_mark}"
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def values_of(case: str) -> tuple[str, str]:
    """The arguments that give helm the values `ci/<case>-values.yaml`."""
    return "--values", str(CHART / "ci" / f"{case}-values.yaml")


@cache
def rendered(case: str) -> list[Json]:
    """What `ci/<case>-values.yaml` makes."""
    return template(*values_of(case))


def refusal(*arguments: str) -> str:
    """What helm says instead of rendering."""
    done = run("template", "headrace", str(CHART), "--namespace", "tasks", *arguments)
    assert done.returncode != 0, "it was not refused"
    return done.stderr


def kinds(objects: list[Json], *wanted: str) -> list[Json]:
    return [each for each in objects if each and each["kind"] in wanted]


def one(objects: list[Json], kind: str, name: str) -> Json:
    [found] = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(objects: list[Json]) -> Iterator[tuple[str, Json, Json]]:
    """(name, metadata, spec) of every pod and pod template."""
    for each in kinds(objects, "Deployment", "StatefulSet"):
        yield each["metadata"]["name"], each["spec"]["template"]["metadata"], each["spec"]["template"]["spec"]
    for each in kinds(objects, "Pod"):
        yield each["metadata"]["name"], each["metadata"], each["spec"]


def env_of(spec: Json) -> dict[str, Any]:
    """Of the first container: the value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in spec["containers"][0]["env"]}
