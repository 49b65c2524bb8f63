"""The runbooks' commands: those of headrace are typed beside `headrace dev`, kubectl's at a real API server.

Their queries are asked of a real Prometheus in test_monitoring_live.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from chart_render import template
from cluster import helm, programs
from control_plane import ControlPlane, running, why_not
from doc_blocks import ROOT, Reader, blocks
from headrace_cli.embedded import choose
from headrace_cli.ports import free_port
from headrace_operator.lease import NAME as LEASE
from headrace_operator.manifests import MANAGED

PAGES: Final = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/runbooks").glob("*.md"))
STAND_IN: Final = """\
#!/bin/sh
echo "error: failed unexpectedly, as far as a log is wanted"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900, func_only=False),  # the first run builds Helm
]


# -- headrace, redis-cli, curl


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody at a machine with a system that works, and with a dead letter in it."""
    if not choose().durable:
        pytest.skip("no real Redis server was found")
    folder = tmp_path_factory.mktemp("runbooks")
    kubectl = folder / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(STAND_IN)
    kubectl.chmod(0o755)
    with Reader(folder, free_port()) as made:
        made.write_files_of("docs/tutorial.md")
        made.start("dev", "headrace dev --no-sample").expect("Watching…\n")
        made.run(f'export PATH="{kubectl.parent}:$PATH"')
        made.run("""ID=$(headrace submit divide '{"a": 1, "b": 0}') && headrace task get --wait "$ID" > task || true""")
        made.run('test "$(headrace task ls state:failed -o name)" = "$ID"')
        address = (folder / ".headrace/url").read_text().strip()
        made.instead = {"get ID": 'get "$ID"', "type:TYPE": "type:divide", "redis-cli ": f"redis-cli -u {address} "}
        yield made


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_page_work(page: str, reader: Reader) -> None:
    reader.follow(page)


# -- kubectl


def kubectl_lines() -> list[Any]:
    lines = [
        (page, line.partition(" | ")[0].removeprefix("kubectl "))
        for page in PAGES
        for block in blocks(page)
        if block.kind == "sh"
        for line in block.text.splitlines()
        if line.startswith("kubectl ")
    ]
    return [pytest.param(line, id=f"{Path(page).stem}: {line}") for page, line in lines]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With what the chart installs, a pool, one of its pods, and the Lease of an operator that leads."""
    if lacks := why_not() or ", ".join(helm.missing()):
        pytest.skip(f"there is no API server with the chart: {lacks}")
    installed = template("--set", "redis.embedded.enabled=true", "--set", "checkSecrets=false")
    with running(tmp_path_factory.mktemp("plane")) as made:
        made.kubectl("create", "namespace", "tasks")
        for each in [*installed, *others()]:
            if each["kind"] != "CustomResourceDefinition":
                made.kubectl("apply", "-f", "-", given=each)
        _until_there(made, "pods", "--selector=app.kubernetes.io/component=operator", "--namespace=tasks")
        _until_there(made, "pods", "--selector=app.kubernetes.io/component=redis", "--namespace=tasks")
        yield made


def others() -> Iterator[dict[str, Any]]:
    [pool] = [block.text for block in blocks("docs/install.md") if block.what == "file"]
    made = yaml.safe_load(pool)
    made["metadata"] |= {"namespace": "tasks", "name": "name"}
    yield made
    where = {"name": "worker", "namespace": "tasks", "labels": dict(MANAGED)}
    container = {"name": "worker", "image": "example.org/worker"}
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": where, "spec": {"containers": [container]}}
    yield {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE, "namespace": "tasks"},
    }  # fmt: skip


def _until_there(plane: ControlPlane, *what: str) -> None:
    deadline = time.monotonic() + 60
    while not plane.kubectl("get", *what, "-o", "name"):
        assert time.monotonic() < deadline, f"there are no {' '.join(what)}"
        time.sleep(0.1)


@pytest.mark.parametrize("line", kubectl_lines())
def test_a_command_of_kubectl_finds_what_it_names(line: str, plane: ControlPlane) -> None:
    """Each kind, name and label is one that the chart or the operator makes."""
    command = f'"$KUBECTL" --namespace tasks {line.replace("NAME", "name")}'
    environ = os.environ | {"KUBECONFIG": str(plane.kubeconfig()), "KUBECTL": str(programs.folder() / "kubectl")}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    may_be_none = re.match(r"logs |get events ", line)
    assert may_be_none or done.stdout, done.stderr
