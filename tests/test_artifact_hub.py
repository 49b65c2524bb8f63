"""What Artifact Hub reads in Chart.yaml: annotations whose text is YAML, which nobody else parses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import yaml

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "charts" / "headrace"
ABOUT: Final = yaml.safe_load((CHART / "Chart.yaml").read_text())
VALUES: Final = yaml.safe_load((CHART / "values.yaml").read_text())
KINDS: Final = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def told(name: str) -> Any:
    return yaml.safe_load(ABOUT["annotations"][f"artifacthub.io/{name}"])


def crds() -> list[Any]:
    return [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "crds").glob("*.yaml"))]


def test_every_crd_is_listed() -> None:
    shipped = {(each["metadata"]["name"], v["name"]) for each in crds() for v in each["spec"]["versions"]}
    assert {(each["name"], each["version"]) for each in told("crds")} == shipped


@pytest.mark.parametrize("example", told("crdsExamples"), ids=lambda each: each["metadata"]["name"])
def test_an_example_is_what_its_crd_takes(example: Any) -> None:
    group, version = example["apiVersion"].split("/")
    [crd] = [each for each in crds() if each["spec"]["group"] == group]
    assert crd["spec"]["names"]["kind"] == example["kind"]
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version]
    jsonschema_rs.Draft4Validator(schema).validate(example)  # exclusiveMinimum is true or false there


def test_the_images_are_those_of_the_values() -> None:
    image, redis = VALUES["image"], VALUES["redis"]["embedded"]["image"]
    assert {each["image"] for each in told("images")} == {
        f"{image['registry']}/{image['repository']}:{ABOUT['appVersion']}",
        f"{redis['registry']}/{redis['repository']}:{redis['tag']}",
    }


def test_changes_and_links_have_their_parts() -> None:
    assert all(each["kind"] in KINDS and each["description"] for each in told("changes"))
    assert all(each["name"] and each["url"].startswith("https://") for each in told("links"))
    assert {"operator", "operatorCapabilities", "license", "category"} <= {
        name.removeprefix("artifacthub.io/") for name in ABOUT["annotations"]
    }
