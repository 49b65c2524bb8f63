"""The page that installs headrace with Helm, carried out as it is written, with the chart's own values."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart_kit import Release, published
from cluster import helm, programs
from cluster.choice import Cluster
from doc_blocks import ROOT, Reader
from headrace_cli.ports import free_port

PAGE = "docs/install.md"

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(helm.missing()), reason=f"Helm cannot be built: {', '.join(helm.missing())} is missing"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the page uses it"),
    pytest.mark.timeout(900, func_only=True),  # the first run builds Helm
]


@pytest.fixture
def fresh(cluster: Cluster) -> Iterator[Release]:
    """A cluster as the page finds it: without a namespace `headrace`, and with the images that the chart names."""
    made = Release(cluster, "headrace", ())
    with published(made):
        yield made
        made.kubectl("delete", "workerpools", "--all")
        made.helm("uninstall", "headrace", "--ignore-not-found", "--wait")
        made.kubectl("delete", "namespace", "headrace")


def test_the_page_can_be_followed(fresh: Release, tmp_path: Path) -> None:
    """The release works in all namespaces, so no other test may have pools meanwhile."""
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(fresh.cluster.kubeconfig, kubeconfig)
    shutil.copy(programs.HERE / "tasks.py", tmp_path)
    tools = f"{Path(fresh.cluster.kubectl).parent}:{helm.build().parent}"
    port = free_port()
    instead = {"$HOME/headrace": str(ROOT), " 8080:80": f" {port}:80"}
    with Reader(tmp_path, port, {"KUBECONFIG": str(kubeconfig)}, instead) as reader:
        reader.run(f'export PATH="{tools}:$PATH"')
        reader.follow(PAGE)
