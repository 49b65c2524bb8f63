"""Files of WorkerPools as `headrace dev -f` reads them: what is refused, and with which words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace_operator.caps import Caps
from headrace_operator.defaults import House
from headrace_operator.fleet import Key
from headrace_operator.looker import Looker
from headrace_operator.loop import ControlLoop
from headrace_operator.pool_file import InvalidPoolFile, read_files, resource, unknown_fields
from operator_kit import MemoryCluster

ROOT = Path(__file__).parent.parent
POOL: dict[str, Any] = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "emails"},
    "spec": {
        "queues": [{"name": "default"}],
        "scaling": {"maxReplicas": 20},
        "template": {"spec": {"containers": [{"name": "worker", "image": "shop:1.4"}]}},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """POOL with `value` at a path such as spec.scaling.maxReplicas; None takes the field away."""
    made: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POOL))
    *above, last = path.split(".")
    place = made
    for name in above:
        place = place.setdefault(name, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


def written(folder: Path, *documents: Any) -> Path:
    file = folder / "pool.yaml"
    file.write_text("---\n".join(each if isinstance(each, str) else yaml.safe_dump(each) for each in documents))
    return file


def test_several_documents_and_files_are_read_and_what_is_no_pool_is_named(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    first = written(tmp_path, POOL, "# nothing\n", service)
    second = written(tmp_path / "more", changed("metadata.name", "orders"))
    found = read_files([first, second], "acme")
    assert list(found.pools) == [Key("acme", "emails"), Key("acme", "orders")]
    assert found.notes == [f"{first}, document 3 is skipped: it is a Service, no WorkerPool"]
    assert {pool.tenant for pool in found.pools.values()} == {"acme"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.scaling.maxReplica", 3, "no field spec.scaling.maxReplica. Did you mean maxReplicas?"),
        ("spec.scaling.behaviour", {}, "no field spec.scaling.behaviour. Did you mean behavior?"),
        ("spec.queues", [{"name": "a", "limit": 1}], "no field spec.queues[0].limit. There are name, weight, target"),
        ("spec.wat", {}, "no field spec.wat. There are queues, scaling, template, mode"),
        ("specs", {}, "no field specs. Did you mean spec?"),
        ("spec.scaling.maxReplicas", "20", "spec.scaling.maxReplicas: Expected `int`, got `str`"),
        ("spec.scaling.maxReplicas", None, "spec.scaling: Object missing required field `maxReplicas`"),
        ("spec.scaling.minReplicas", 21, "minReplicas 21 is above maxReplicas 20"),
        ("spec.mode", "Automatic", "spec.mode: Invalid enum value 'Automatic'"),
        ("spec.queues", [], "spec.queues: Expected `array` of length >= 1"),
        ("spec.queues", [{"name": "Bad Name"}], "spec.queues[0].name: Expected 1 to 63 of a-z, 0-9 and '-'"),
        ("spec.scaling.schedules", [{"name": "n", "start": "x", "end": "0 6 * * *"}], "[n].start: 'x' is no cron"),
        ("spec.template", None, "spec.template is missing"),
        ("spec.template", {"spec": {"containers": []}}, "spec.template.spec.containers needs at least one container"),
        ("spec", None, "spec is missing"),
        ("metadata.name", "Emails", "metadata.name is 'Emails'. Allowed are lower-case letters"),
        ("metadata", None, "metadata.name is None"),
        ("apiVersion", "headrace.dev/v1", "apiVersion is 'headrace.dev/v1'. This headrace reads headrace.dev/v1alpha1"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_file_and_what_was_meant(
    tmp_path: Path, path: str, value: Any, said: str
) -> None:
    file = written(tmp_path, changed(path, value))
    with pytest.raises(InvalidPoolFile) as caught:
        read_files([file], "default")
    assert str(caught.value).startswith(str(file)) and said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "pool.yaml:2: it is no YAML"),
        ("just words\n", "an object is expected, and this is a str"),
        ("", "there is no WorkerPool in it. One begins with `kind: WorkerPool`"),
        ("kind: Service\n", "there is no WorkerPool in it"),
    ],
)
def test_a_file_without_a_pool_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidPoolFile) as caught:
        read_files([file], "default")
    assert said in str(caught.value)


def test_two_pools_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPoolFile, match="there are two WorkerPools 'emails'"):
        read_files([written(tmp_path, POOL, POOL)], "default")


def test_every_field_of_the_crd_is_known_here() -> None:
    """Who adds a field to one place only hears of it."""
    crd = yaml.safe_load((ROOT / "crds/workerpools.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert list(unknown_fields({"spec": example_of(schema)})) == []


def example_of(schema: dict[str, Any]) -> Any:
    """A value with every field of the schema."""
    if schema.get("type") == "object":
        return {name: example_of(inner) for name, inner in schema.get("properties", {}).items()}
    return [example_of(schema["items"])] if schema.get("type") == "array" else 1


def test_the_control_loop_reads_the_pool_as_it_was(tmp_path: Path) -> None:
    spec = {
        **POOL["spec"],
        "mode": "External",
        "replicas": 3,
        "scaling": {"maxReplicas": 5, "behavior": {"scaleDown": {"policies": []}}, "schedules": [
            {"name": "night", "start": "0 22 * * *", "end": "0 6 * * *", "maxReplicas": 1}]},
    }  # fmt: skip
    [pool] = read_files([written(tmp_path, changed("spec", spec))], "default").pools.values()
    loop = ControlLoop(MemoryCluster(), Looker({}), tick_s=1, caps=Caps(), house=House(tenants=True))
    assert loop.saw_pool(resource(pool, 1)) is None
    assert loop.pools[Key("default", "emails")].pool == pool


def test_every_field_of_the_resource_is_explained() -> None:
    """`kubectl explain` prints these, and nothing else teaches as well."""
    crd = yaml.safe_load((ROOT / "crds/workerpools.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    common = {"apiVersion", "kind", "metadata"}
    assert [name for name, node in _fields(schema) if "description" not in node and name not in common] == []


def _fields(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in node.get("properties", {}).items():
        yield above + name, field
        yield from _fields(field, f"{above}{name}.")
    if "items" in node:
        yield from _fields(node["items"], f"{above}[].")
