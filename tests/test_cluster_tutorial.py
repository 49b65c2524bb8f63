"""The page that leads from a laptop to a cluster, carried out as it is written."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from cluster import programs
from cluster_kit import World
from doc_blocks import ROOT, Reader
from headrace_cli.ports import free_port

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH, and the page uses it"),
]


async def test_the_way_from_a_laptop_to_a_cluster_can_be_gone(world: World, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(world.cluster.kubeconfig, kubeconfig)
    shutil.copy(programs.HERE / "tasks.py", tmp_path)
    namespace = f"--namespace={world.namespace}"
    await world.kubectl("config", "set-context", "--current", namespace, f"--kubeconfig={kubeconfig}")
    await world.kubectl("delete", "secret", "headrace-redis")
    environ = {
        "KUBECONFIG": str(kubeconfig), "HEADRACE_URL": world.redis.near,
        "HEADRACE_OPERATOR_NAMESPACES": world.namespace, "HEADRACE_OPERATOR_METRICS_PORT": "0",
    }  # fmt: skip
    await asyncio.to_thread(_follow, tmp_path, environ, Path(world.cluster.kubectl).parent)


def _follow(folder: Path, environ: dict[str, str], tools: Path) -> None:
    with Reader(folder, free_port(), environ, {"$HOME/headrace": str(ROOT)}) as reader:
        reader.run(f'export PATH="{tools}:$PATH"')
        reader.follow("docs/kubernetes.md")
